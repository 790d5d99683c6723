"""Stage 5: samples at several temperatures, continuations, reconstructions, and what each level of latents controls.

Audio is written as <name>.wav. Vectors are written as <name>.npy, float32 (T, C) in the units of the data.
"""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import add_check, make_parser, run_main, status_if_decided
from speechlvm.bin.inputs import add_model, check_done, fingerprint_of_model
from speechlvm.utils.files import hash_file, is_done, mark_done, mark_undone, write_json
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Sample from one model."""
    parser = make_parser(__doc__)
    add_model(parser)
    parser.add_argument("--dump", type=Path, required=True, help="dump to take prefixes and originals from")
    parser.add_argument("--out", type=Path, required=True, help="directory of samples and figures")
    parser.add_argument("--count", type=int, default=4, help="number of samples of each kind")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each sample")
    parser.add_argument("--prefix_seconds", type=float, default=1.0, help="real data before a continuation")
    parser.add_argument("--frames", type=int, help="length of each sample, in frames instead of seconds")
    parser.add_argument("--prefix_frames", type=int, help="real data before a continuation, in frames")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--ngpu", type=int, default=0, help="number of GPUs, 0 or 1")
    add_check(parser)
    arguments = parser.parse_args(argv)
    lengths = [arguments.seconds, arguments.prefix_seconds, arguments.frames, arguments.prefix_frames]
    if arguments.count < 1 or any(length is not None and length <= 0 for length in lengths):
        parser.error("--count, --seconds, --prefix_seconds, --frames and --prefix_frames must be positive")
    check_done(arguments.dump)
    inputs = {
        "model": fingerprint_of_model(arguments),
        "dump": hash_file(arguments.dump / "info.json"),
        **{
            key: getattr(arguments, key)
            for key in ("count", "seconds", "prefix_seconds", "frames", "prefix_frames", "seed")
        },
    }
    status = status_if_decided(arguments, arguments.out, is_done(arguments.out, inputs))
    if status is not None:
        return status
    mark_undone(arguments.out)
    _sample(arguments)
    mark_done(arguments.out, inputs)
    return 0


def _lengths(arguments: Any, rate_hz: float | None) -> tuple[int, int]:
    """Frames to generate, and frames of real data before a continuation."""
    from speechlvm.utils.errors import UserError

    frames, prefix = arguments.frames, arguments.prefix_frames
    if rate_hz is None and (frames is None or prefix is None):
        raise UserError(f"{arguments.dump}: its frames have no rate; give --frames and --prefix_frames")
    frames = round(arguments.seconds * rate_hz) if frames is None else frames
    return frames, round(arguments.prefix_seconds * rate_hz) if prefix is None else prefix


def _sample(arguments: Any) -> None:
    from speechlvm.data.audio import write_wav
    from speechlvm.data.dumps import open_dump
    from speechlvm.data.dumps.pcm import PCMDump
    from speechlvm.experiment.load import load_experiment, training_device
    from speechlvm.reporting.pictures import channels_page, waveform_page
    from speechlvm.sampling import generate
    from speechlvm.utils.errors import UserError
    from speechlvm.utils.files import write_array

    dump = open_dump(arguments.dump)
    audible = isinstance(dump, PCMDump)
    frames, prefix = _lengths(arguments, dump.rate_hz)
    if arguments.adaptive:
        from speechlvm.models.adaptive import Adaptive

        if not audible:
            raise UserError(f"{arguments.dump}: holds vectors; the adaptive reference is for audio")
        title = "adaptive"
    else:
        experiment = load_experiment(arguments.exp, training_device(arguments.ngpu))
        experiment.observation.check(dump)
        title = experiment.name
    longest = max(record.frames for record in dump.records.values())
    if longest < prefix:
        print(f"no utterance has {prefix} frames: continuations start after {longest // 2}, half of the longest")
        prefix = longest // 2
    long_enough = [u for u in sorted(dump.records) if dump.records[u].frames >= prefix]
    # spread over the set, to have several speakers
    chosen = long_enough[:: max(1, len(long_enough) // arguments.count)][: arguments.count]
    prefixes = {u: dump.read(u, 0, prefix) for u in chosen}
    if arguments.adaptive:
        groups = generate.adaptive_groups(Adaptive(), prefixes, arguments.count, frames, arguments.seed)
    else:
        groups = [
            *generate.prior_groups(experiment, arguments.count, frames, arguments.seed),
            *generate.continuations(experiment, prefixes, frames, arguments.seed),
            *generate.utterance_groups(experiment, {u: dump.read(u, 0, frames) for u in chosen}, arguments.seed),
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    index = []
    for group in groups:
        for item in group.made:
            if audible:
                write_wav(arguments.out / f"{item.name}.wav", item.data, dump.rate_hz)
            else:
                write_array(arguments.out / f"{item.name}.npy", item.data)
            index.append(
                {
                    "name": item.name,
                    "kind": group.kind,
                    "description": generate.DESCRIPTIONS[group.kind],
                    "picture": group.picture,
                    **item.about,
                    "log_likelihood_nats": item.log_likelihood_nats,
                    "marks": item.marks,
                }
            )
        picture = arguments.out / group.picture
        heading = f"{title}: {picture.stem}"
        page = [(item.title, item.data, item.marks) for item in group.page]
        if audible:
            waveform_page(picture, page, dump.rate_hz, heading, group.columns)
        else:
            channels_page(picture, page, list(dump.channels), dump.rate_hz, heading, group.columns)
    write_json(arguments.out / "samples.json", index)
    print(f"{arguments.out}: {counted(len(index), 'sequences')}")


if __name__ == "__main__":
    run_main(main)
