"""Fix Kaldi data directories by removing and sorting lines and cutting late ends; reports each change."""

import argparse

from speechlvm.bin.cli import run_main


def main(argv: list[str] | None = None) -> int:
    """Fix directories and print each change."""
    parser = argparse.ArgumentParser(prog="fix_data_dir", description=__doc__, allow_abbrev=False)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="data directory (wav.scp, utt2spk, ...)")
    parser.add_argument("--allow-pipes", "--allow_pipes", action="store_true", help="run the commands in wav.scp")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    arguments = parser.parse_args(argv)

    from speechlvm.data.kaldi.fix import fix

    for directory in arguments.directories:
        for line in fix(directory, arguments.allow_pipes) or [f"{directory}: nothing to fix"]:
            print(line)
    return 0


if __name__ == "__main__":
    run_main(main)
