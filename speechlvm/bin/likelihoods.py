"""Print all likelihoods: bits or nats per frame, best first."""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main


def main(argv: list[str] | None = None) -> int:
    """Print a table for each set that has been scored."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    arguments = parser.parse_args(argv)

    from speechlvm.reporting.collect import collect
    from speechlvm.reporting.document import overviews

    errors: list[str] = []
    tables = overviews(collect(arguments.exp, errors))
    print("\n\n".join([*(f"Left out: {error}." for error in errors), *tables]))
    return 0


if __name__ == "__main__":
    run_main(main)
