"""Check Kaldi data directories: formats, order, and consistency of the files with each other and with the audio."""

import argparse
import sys
from pathlib import Path

from speechlvm.bin.cli import run_main


def main(argv: list[str] | None = None) -> int:
    """Print every error; returns 1 if there are any."""
    parser = argparse.ArgumentParser(prog="validate_data_dir", description=__doc__, allow_abbrev=False)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directory (wav.scp, utt2spk, ...)")
    parser.add_argument("--no-audio", "--no_audio", action="store_true", help="do not open the audio files or archives")
    parser.add_argument("--allow-pipes", "--allow_pipes", action="store_true", help="run the commands in wav.scp")
    parser.add_argument(
        "--disjoint",
        choices=("utterances", "speakers"),
        help="the directories are a training set, a validation set and test sets: no two may share utterances or "
        "audio; with 'speakers', test sets must share no speakers with the first two either",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)

    from speechlvm.data.corpora.preparation import PREPARATION
    from speechlvm.data.kaldi.validate import overlaps, validate
    from speechlvm.data.log import Log

    failed, log = False, Log()
    for directory in arguments.directories:
        is_prepared = Path(directory, PREPARATION).exists()  # oddities were reported by the preparation
        errors = validate(directory, not arguments.no_audio, arguments.allow_pipes, None if is_prepared else log)
        _print(errors)
        failed |= bool(errors)
        if not errors:
            print(f"{directory}: valid")
    log.report()
    if arguments.disjoint and not failed:
        errors = overlaps(arguments.directories, arguments.disjoint == "speakers")
        _print(errors)
        failed = bool(errors)
    return int(failed)


def _print(errors: list[str]) -> None:
    for error in errors:
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
