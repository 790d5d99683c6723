"""Checks Kaldi data directories: formats, order, agreement of the files with each other and with the audio."""

import argparse
import sys

from speechlvm.bin.cli import run_main


def main(argv: list[str] | None = None) -> int:
    """Prints every fault; 1 if there was any."""
    parser = argparse.ArgumentParser(prog="validate_data_dir", description=__doc__)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directory (wav.scp, utt2spk, ...)")
    parser.add_argument("--no-audio", "--no_audio", action="store_true", help="do not open the audio files or archives")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)

    from speechlvm.data.directory import validate

    status = 0
    for directory in arguments.directories:
        faults = validate(directory, check_audio=not arguments.no_audio)
        for fault in faults:
            print(f"error: {fault}", file=sys.stderr)
        if faults:
            status = 1
        else:
            print(f"{directory}: valid")
    return status


if __name__ == "__main__":
    run_main(main)
