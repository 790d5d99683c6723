"""Checks that recipes have all their parts: files, settings, hooks, configurations, tables, README."""

import sys

from speechlvm.bin.cli import make_parser, run_main


def main(argv: list[str] | None = None) -> int:
    """Prints every lack; 1 if there was any."""
    parser = make_parser(__doc__)
    parser.prog = "check_recipe"
    parser.add_argument("recipes", nargs="+", metavar="DIR", help="a recipe, for instance egs/timit")
    arguments = parser.parse_args(argv)

    from speechlvm.bin.baseline import BASELINES
    from speechlvm.bin.recipe import lacks

    status = 0
    for recipe in arguments.recipes:
        found = lacks(recipe, BASELINES)
        for lack in found:
            print(f"error: {lack}", file=sys.stderr)
        if found:
            status = 1
        else:
            print(f"{recipe}: complete")
    return status


if __name__ == "__main__":
    run_main(main)
