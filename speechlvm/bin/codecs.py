"""List the external codecs of a file, one per line; the name is followed by the program that is missing, if any."""

from pathlib import Path

from speechlvm.bin.baseline import BASELINES
from speechlvm.bin.cli import make_parser, run_main
from speechlvm.utils.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Print the list."""
    parser = make_parser(__doc__)
    parser.add_argument("codecs", type=Path, help="YAML file")
    arguments = parser.parse_args(argv)

    from speechlvm.compression.external import load_codecs

    codecs = load_codecs(arguments.codecs)
    for name in codecs:
        if name in BASELINES:
            raise ConfigError(f"{arguments.codecs}: {name}: a reference that is always scored; choose another name")
    for name, commands in codecs.items():
        print(f"{name} {commands.missing}".strip())
    return 0


if __name__ == "__main__":
    run_main(main)
