"""Unpacks a Debian package where there is no dpkg-deb."""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.corpora.unpack import unpack
from speechlvm.utils.files import atomic_directory

MOST_BYTES = 500_000_000  # festvox-ru has 241 million


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and unpacks the package, completely or not at all."""
    parser = make_parser(__doc__)
    parser.add_argument("--package", type=Path, required=True, help="the package, whose name ends in .deb")
    parser.add_argument("--to", type=Path, required=True, help="new directory for its files")
    arguments = parser.parse_args(argv)
    with atomic_directory(arguments.to) as unpacked:
        unpack(arguments.package, unpacked, MOST_BYTES)
    return 0


if __name__ == "__main__":
    run_main(main)
