"""Stage 10: the papers' tables next to our results, and figures, from result.json files alone."""

from itertools import chain
from pathlib import Path
from typing import Any

from speechlvm import __version__
from speechlvm.bin.cli import add_check, make_parser, run_main, status_if_decided
from speechlvm.utils.files import (
    atomic_write,
    files_below,
    hash_file,
    is_done,
    mark_done,
    mark_undone,
    remove_leftovers,
    remove_leftovers_of,
)

READ = ("done.json", "result.json", "history.jsonl")


def main(argv: list[str] | None = None) -> int:
    """Write RESULTS.md, tables as CSV and LaTeX, and figures; print RESULTS.md."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    parser.add_argument("--tables", type=Path, required=True, help="directory of the YAML files of tables")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--only", default="", help="names of the tables to write, e.g. 'A1 A3'; default: all")
    parser.add_argument("--command", default="bash run.sh", help="command that made the results, to show in --out")
    add_check(parser)
    arguments = parser.parse_args(argv)

    from speechlvm.reporting import tables

    chosen = tables.choose(tables.load_tables(arguments.tables), arguments.only.split())
    roots, externals = tables.roots(chosen), tables.externals(chosen)
    inputs, marked = _inputs(arguments, roots, externals), arguments.exp / "tables"
    made = {"written": hash_file(arguments.out) if arguments.out.exists() else None}
    status = status_if_decided(arguments, arguments.out, is_done(marked, inputs | made))
    if status is not None:
        return status
    mark_undone(marked)
    remove_leftovers_of(arguments.out)
    remove_leftovers(arguments.exp / "figures")
    _write(arguments, chosen, roots, externals)
    mark_done(marked, inputs | {"written": hash_file(arguments.out)})
    return 0


def _inputs(arguments: Any, roots: list[str], externals: list[str]) -> dict[str, Any]:
    """Everything that determines tables and figures."""
    files = sorted(arguments.tables.glob("*.yaml"))
    files += sorted(path for folder in externals for path in Path(folder).glob("*.json"))
    again: list[Path] = []  # their results are read under both names
    for root in filter(Path.is_dir, (arguments.exp, *map(Path, roots))):
        below = files_below(root, again.append)
        files += sorted(path for path in below if path.name in READ and path.parent != root / "tables")
    settings = {name: str(getattr(arguments, name)) for name in ("only", "command", "out")}
    links = {"again": sorted(map(str, again))} if again else {}
    return {"version": __version__, **settings, **links, "files": {str(path): hash_file(path) for path in files}}


def _write(arguments: Any, chosen: list[Any], roots: list[str], externals: list[str]) -> None:
    """Write tables and figures.

    Raises:
        UserError: some files cannot be used; everything that does not need them is written.
    """
    from speechlvm.reporting import latent_tables
    from speechlvm.reporting.analysis_results import collect_analyses
    from speechlvm.reporting.collect import collect, collect_external, collect_files, raise_first
    from speechlvm.reporting.compare import compare
    from speechlvm.reporting.document import document, files_grid
    from speechlvm.reporting.order import order_grids
    from speechlvm.reporting.published import published_grid

    exp, errors = arguments.exp, []
    own = collect(exp, errors)
    scores = [*own, *(score for root in roots for score in collect(Path(root), errors, root))]
    others = [score for folder in externals for score in collect_external(Path(folder), errors)]
    compared = [compare(table, [*others, *scores], exp.name) for table in chosen]
    analyses = collect_analyses(exp, errors)
    files = collect_files(exp, errors)
    grids = [*([files_grid(files)] if files else []), *latent_tables.grids(analyses)]
    orders = {item.table.table: order_grids(item, scores) for item in compared}
    for grid in [*map(published_grid, compared), *chain(*orders.values()), *grids]:
        for suffix, text in ((".csv", grid.csv()), (".tex", grid.latex())):
            with atomic_write(exp / "tables" / f"{grid.name}{suffix}") as stream:
                stream.write(text)
    _draw(exp / "figures", own, files, compared, analyses, errors)
    text = document(compared, orders, scores, grids, exp.name, arguments.command, errors)
    with atomic_write(arguments.out) as stream:
        stream.write(text)
    print(text)
    print(f"written: {arguments.out}, {exp / 'tables'}, {exp / 'figures'}")
    raise_first(errors, arguments.out)


def _draw(
    folder: Path, scores: list[Any], files: list[Any], compared: list[Any], analyses: list[Any], errors: list[str]
) -> None:
    """All figures for which there is data."""
    from speechlvm.coding import PCM_CODINGS
    from speechlvm.reporting import figures
    from speechlvm.reporting.analysis_results import mean_curves
    from speechlvm.reporting.collect import learning_curves
    from speechlvm.reporting.compare import sweep
    from speechlvm.reporting.compute_figure import compute_figure

    for name, coding in sorted({(score.set, score.coding) for score in scores if score.first.unit == "pmf"}):
        if coding not in PCM_CODINGS:
            figures.bits_figure(folder / f"bits_{name}_{coding}", scores, name, [coding])
    for name in sorted({score.set for score in scores if score.coding in PCM_CODINGS}):
        figures.bits_figure(folder / f"bits_{name}_pcm", scores, name, PCM_CODINGS)
        compute_figure(folder / f"compute_{name}", scores, name, PCM_CODINGS, files)
    for item in compared:
        if item.table.axis and (results := sweep(item)):
            figures.sweep_figure(folder / item.table.table, item.table, results)
    curves = learning_curves(folder.parent, errors)
    discrete = {name: curve for name, curve in curves.items() if curve[0]["bits_per_frame"] is not None}
    densities = {name: curve for name, curve in curves.items() if name not in discrete}
    if discrete:
        figures.curves_figure(folder / "learning_curves", discrete, "bits_per_frame")
    if densities:
        figures.curves_figure(folder / "learning_curves_densities", densities, "nats_per_frame")
    terms = {term for curve in curves.values() for term in curve[-1]["terms_nats_per_frame"]}
    if levels := sorted(term.removeprefix("kl_") for term in terms if term.startswith("kl_")):
        figures.kl_figure(folder / "kl_curves", curves, levels)
    if panels := mean_curves(analyses):
        figures.neighbours_figure(folder / "neighbours", panels)


if __name__ == "__main__":
    run_main(main)
