"""Stage 2: write a set's frames for training and scoring, or features for other uses.

pcm16: audio as int16 archives with their histogram. vectors: sequences of vectors with their moments. mulaw, logmel:
codes and log-mel features of audio, which models do not read.
"""

import logging
from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_sharding, make_parser, run_main, run_sharded, start_logging

KINDS = ("pcm16", "vectors", "mulaw", "logmel")


def main(argv: list[str] | None = None) -> int:
    """Dump one set."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="data directory, or a folder of 16-bit mono audio files (WAV, FLAC, SPHERE)",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the dump")
    parser.add_argument("--kind", choices=KINDS, default="pcm16", help="what to write")
    parser.add_argument(
        "--rate_hz", type=int, help="required sampling rate of the audio; default: that of the first file"
    )
    parser.add_argument(
        "--segment_frames",
        type=int,
        help="cut each recording into consecutive utterances of this many frames; the last may be shorter",
    )
    parser.add_argument("--allow_pipes", action="store_true", help="run the commands in wav.scp")
    add_sharding(parser)
    arguments = parser.parse_args(argv)

    from speechlvm.data.kaldi.directory import load_data_dir
    from speechlvm.data.kaldi.folder import load_folder
    from speechlvm.utils.errors import ConfigError, UserError
    from speechlvm.utils.files import bytes_in, check_space

    start_logging()
    if not arguments.data.is_dir():
        raise UserError(f"{arguments.data}: no such data directory; run stage 1 (data directories)")
    data = (load_data_dir if (arguments.data / "utt2spk").exists() else load_folder)(arguments.data)
    if (arguments.kind == "vectors") != bool(data.channels):
        found = "vectors" if data.channels else "audio"
        raise UserError(f"{arguments.data}: holds {found}; cannot make a dump of kind {arguments.kind}")
    if arguments.segment_frames is not None and (arguments.segment_frames < 1 or data.channels):
        raise ConfigError(f"--segment_frames {arguments.segment_frames}: expected at least 1, and audio")
    prepare = {"pcm16": _pcm16, "vectors": _vectors}.get(arguments.kind, _features)
    inputs, write, merge = prepare(arguments, data)

    def write_where_it_fits(job: int, inputs: dict) -> None:
        check_space(arguments.out, _bytes(arguments.kind, data, arguments.nj), "a dump", bytes_in(arguments.out))
        write(job, inputs)

    return run_sharded(arguments, arguments.out, inputs, write=write_where_it_fits, merge=merge)


def _bytes(kind: str, data: Any, jobs: int) -> int:
    """Approximate size of a dump; that of an empty one if lengths of utterances are unknown."""
    from speechlvm.data.dumps.features import MEL_BINS, MEL_HOP_FRAMES

    per_frame = {"pcm16": 2, "mulaw": 4, "logmel": 4 * MEL_BINS / MEL_HOP_FRAMES, "vectors": 4 * len(data.channels)}
    frames = data.num_frames if kind == "vectors" else data.num_samples
    histograms = (jobs + 1) * 8 * 65536 if kind == "pcm16" else 0
    return int(sum(frames.values()) * per_frame[kind]) + 200 * len(data.utt2spk) + histograms


def _audio(arguments: Any, recordings: Any, rate_hz: int, job: int) -> Any:
    """Utterances with blocks of samples."""
    from speechlvm.data.audio import BLOCK_FRAMES
    from speechlvm.data.dumps.dump import share_of

    length = arguments.segment_frames
    for utterance in share_of(recordings.utterances, job, arguments.nj):
        if length is None:
            yield utterance, recordings.blocks(utterance, rate_hz, BLOCK_FRAMES)
        else:
            for number, samples in enumerate(recordings.blocks(utterance, rate_hz, length)):
                yield f"{utterance}-{number * length:010d}", [samples]


def _audio_inputs(arguments: Any, recordings: Any) -> dict[str, Any]:
    from speechlvm.utils.files import hash_value

    settings = {name: getattr(arguments, name) for name in ("kind", "rate_hz", "segment_frames")}
    counts = _preparation(arguments.data)
    return {**settings, "audio": hash_value(recordings.stamps()), **({"preparation": counts} if counts else {})}


def _preparation(data: Path) -> dict[str, Any]:
    """Counts of rejected, converted and odd files of the preparation, if there were any."""
    from speechlvm.data.corpora.preparation import PREPARATION
    from speechlvm.utils.files import read_json

    return read_json(data / PREPARATION) if (data / PREPARATION).exists() else {}


def _pcm16(arguments: Any, data: Any) -> tuple:
    from speechlvm.data.dumps import pcm
    from speechlvm.data.kaldi.recordings import Recordings

    recordings = Recordings(data, arguments.data, arguments.allow_pipes)

    def write(job: int, inputs: dict) -> None:
        rate_hz = arguments.rate_hz or recordings.rate_hz()
        pcm.write(arguments.out, job, _audio(arguments, recordings, rate_hz, job), rate_hz, inputs)

    def merge() -> None:
        info = pcm.merge(arguments.out, arguments.nj, str(arguments.data), _preparation(arguments.data))
        if arguments.segment_frames:
            shorter = sum(count % arguments.segment_frames > 0 for count in data.num_samples.values())
            logging.info(
                f"{len(data.utt2spk)} recordings cut into {info['utterances']} segments of {arguments.segment_frames} "
                f"frames, {shorter} of them shorter (ends of recordings)"
            )

    return _audio_inputs(arguments, recordings), write, merge


def _features(arguments: Any, data: Any) -> tuple:
    import numpy as np

    from speechlvm.data.dumps import features
    from speechlvm.data.kaldi.recordings import Recordings

    recordings = Recordings(data, arguments.data, arguments.allow_pipes)

    def write(job: int, inputs: dict) -> None:
        rate_hz = arguments.rate_hz or recordings.rate_hz()
        transform = features.TRANSFORMS[arguments.kind](rate_hz)
        audio = _audio(arguments, recordings, rate_hz, job)
        items = ((utterance, transform(np.concatenate(list(blocks)))) for utterance, blocks in audio)
        features.write(arguments.out, job, items, inputs)

    return _audio_inputs(arguments, recordings), write, lambda: features.merge(arguments.out, arguments.nj)


def _vectors(arguments: Any, data: Any) -> tuple:
    from speechlvm.data.dumps import vectors
    from speechlvm.data.dumps.dump import share_of
    from speechlvm.data.kaldi import matrices
    from speechlvm.data.kaldi.recordings import file_stamp
    from speechlvm.utils.files import hash_value

    stamps = [[u, place, *file_stamp(Path(place.rpartition(":")[0]))] for u, place in sorted(data.feats.items())]
    inputs = {
        "kind": "vectors",
        "feats": hash_value(stamps),
        "channels": list(map(list, data.channels.items())),
        "rate_hz": data.rate_hz,
    }

    def write(job: int, inputs: dict) -> None:
        share = share_of(sorted(data.feats), job, arguments.nj)
        sequences = ((utterance, matrices.read_vectors(data.feats[utterance], utterance)) for utterance in share)
        vectors.write(arguments.out, job, sequences, data.channels, inputs)

    def merge() -> None:
        vectors.merge(arguments.out, arguments.nj, str(arguments.data), data.channels, data.rate_hz)

    return inputs, write, merge


if __name__ == "__main__":
    run_main(main)
