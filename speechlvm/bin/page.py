"""Stage 10: one page per experiment with all its sounds, figures and tables: a self-contained index.html."""

from pathlib import Path

from speechlvm.bin.cli import add_check, make_parser, run_main, status_if_decided


def main(argv: list[str] | None = None) -> int:
    """Write <exp>/index.html from the results of the other stages."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>/<experiment>/seed<k>, or .../spectra")
    parser.add_argument("--title", default="", help="title of the page; default: name of the experiment")
    add_check(parser)
    arguments = parser.parse_args(argv)

    from speechlvm.reporting.collect import raise_first
    from speechlvm.reporting.page import PAGE, Page
    from speechlvm.utils.errors import UserError
    from speechlvm.utils.files import atomic_write, remove_leftovers_of

    if not arguments.exp.is_dir():
        raise UserError(f"{arguments.exp}: no such directory; give that of an experiment")
    page, out = Page(arguments.exp, arguments.title), arguments.exp / PAGE
    status = status_if_decided(arguments, out, page.is_made())
    if status is not None:
        return status
    remove_leftovers_of(out)
    text = page.html()
    with atomic_write(out) as stream:
        stream.write(text)
    print(f"written: {out} ({len(text) / 1e6:.1f} MB)")
    raise_first(page.errors, out)
    return 0


if __name__ == "__main__":
    run_main(main)
