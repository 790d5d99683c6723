"""Decompress a file of `compress` to 16-bit WAV files, or compare it with a dump; needs the same model."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.bin.inputs import check_done, check_trained
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Decompress all utterances of a file, or one."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--exp", type=Path, help="experiment directory, or an export; not needed after compress --adaptive"
    )
    parser.add_argument("file", type=Path, help="file to decompress")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--out", type=Path, help="directory of the WAV files")
    to.add_argument("--dump", type=Path, help="write nothing: compare with the same utterances of this dump")
    parser.add_argument("--utterance", help="decompress only this utterance")
    arguments = parser.parse_args(argv)
    if arguments.exp is not None:
        check_trained(arguments.exp)
    if arguments.dump is not None:
        check_done(arguments.dump)
    _decompress(arguments)
    return 0


def _decompress(arguments: Any) -> None:
    import sys
    import time

    import numpy as np
    from tqdm import tqdm

    from speechlvm.compression.codec import decompress, load_decoder
    from speechlvm.data.audio import write_wav
    from speechlvm.data.dumps import open_dump
    from speechlvm.utils.errors import UserError

    dump = None if arguments.dump is None else open_dump(arguments.dump)
    began = 0.0
    with tqdm(unit="frame", unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def start(frames: int) -> Any:
            nonlocal began
            began = time.monotonic()
            bar.reset(frames)
            return bar.update

        count = frames = 0
        experiment = load_decoder(arguments.file, arguments.exp)
        for utterance, pcm, rate_hz in decompress(experiment, arguments.file, arguments.utterance, start):
            if dump is None:
                write_wav(arguments.out / f"{utterance}.wav", pcm, rate_hz)
            elif utterance not in dump.records or not np.array_equal(pcm, dump.read(utterance)):
                raise UserError(
                    f"{arguments.file}: {utterance}: not the samples in {arguments.dump}; give the dump that was "
                    "compressed, or compress again"
                )
            count, frames = count + 1, frames + len(pcm)
    place = arguments.out or f"as in {arguments.dump}"
    print(f"{place}: {counted(count, 'utterances')}, {frames} frames, {time.monotonic() - began:.3f} s")


if __name__ == "__main__":
    run_main(main)
