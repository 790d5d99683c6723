"""Compress 16-bit PCM losslessly with a model, into a file about as long as its likelihood says."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, positive, run_main
from speechlvm.bin.inputs import add_model, check_done, fingerprint_of_model
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Write one file."""
    parser = make_parser(__doc__)
    add_model(parser)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--wav", type=Path, nargs="+", help="audio files (WAV, FLAC, SPHERE) or directories of them")
    given.add_argument("--dump", type=Path, help="dump of a set")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--lanes", type=positive(int), help="utterances side by side, which is faster; default: by kind of model"
    )
    arguments = parser.parse_args(argv)
    if (arguments.lanes or 1) > 4096:
        parser.error("--lanes is at most 4096")
    fingerprint_of_model(arguments)
    if arguments.dump is not None:
        check_done(arguments.dump)
    _compress(arguments)
    return 0


def _compress(arguments: Any) -> None:
    import sys
    import time

    from tqdm import tqdm

    from speechlvm.compression.codec import compress, load_codec
    from speechlvm.compression.source import source_of_dump, source_of_files

    experiment = None if arguments.adaptive else load_codec(arguments.exp)
    source = source_of_files(arguments.wav) if arguments.dump is None else source_of_dump(arguments.dump)
    began = time.monotonic()
    with tqdm(total=sum(source.frames.values()), unit="frame", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        sizes = compress(experiment, source, arguments.out, arguments.lanes, bar.update)
    print(f"{arguments.out}: {counted(sizes.utterances, 'utterances')}, {sizes.frames} frames")
    print(sizes.describe(experiment.model.bound if experiment else "exact"))
    print(f"{'speed':18} {sizes.frames / (time.monotonic() - began):9.0f} frames per second")


if __name__ == "__main__":
    run_main(main)
