"""Decompress a file of `compress`, with the model that it was compressed with, to 16-bit WAV files."""

from pathlib import Path
from typing import Any

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.bin.inputs import check_trained
from speechlvm.utils.text import counted


def main(argv: list[str] | None = None) -> int:
    """Decompress all utterances of a file, or one."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--exp", type=Path, help="experiment directory, or an export; not needed after compress --adaptive"
    )
    parser.add_argument("file", type=Path, help="to decompress")
    parser.add_argument("--out", type=Path, required=True, help="directory of the WAV files")
    parser.add_argument("--utterance", help="only this one")
    arguments = parser.parse_args(argv)
    if arguments.exp is not None:
        check_trained(arguments.exp)
    _decompress(arguments)
    return 0


def _decompress(arguments: Any) -> None:
    import sys

    from tqdm import tqdm

    from speechlvm.compression.codec import decompress, load_decoder
    from speechlvm.data.audio import write_wav

    with tqdm(unit="frame", unit_scale=True, disable=not sys.stderr.isatty()) as bar:

        def start(frames: int) -> Any:
            bar.reset(frames)
            return bar.update

        count = 0
        experiment = load_decoder(arguments.file, arguments.exp)
        for utterance, pcm, rate_hz in decompress(experiment, arguments.file, arguments.utterance, start):
            write_wav(arguments.out / f"{utterance}.wav", pcm, rate_hz)
            count += 1
    print(f"{arguments.out}: {counted(count, 'utterances')}")


if __name__ == "__main__":
    run_main(main)
