"""Stage 10: the papers' tables next to our results, and figures, from result.json files alone."""

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
    parser.add_argument("--tables", type=Path, required=True, help="directory of the tables' YAML files")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--only", default="", help="names of the tables to write, for instance 'A1 A3' (default: all)")
    parser.add_argument("--command", default="bash run.sh", help="the command that made the results")
    add_check(parser)
    arguments = parser.parse_args(argv)

    from speechlvm.reporting import tables

    chosen = tables.choose(tables.load_tables(arguments.tables), arguments.only.split())
    roots = tables.roots(chosen)
    inputs, marked = _inputs(arguments, roots), arguments.exp / "tables"
    made = {"written": hash_file(arguments.out) if arguments.out.exists() else None}
    status = status_if_decided(arguments, arguments.out, is_done(marked, inputs | made))
    if status is not None:
        return status
    mark_undone(marked)
    remove_leftovers_of(arguments.out)
    remove_leftovers(arguments.exp / "figures")
    _write(arguments, chosen, roots)
    mark_done(marked, inputs | {"written": hash_file(arguments.out)})
    return 0


def _inputs(arguments: Any, roots: list[str]) -> dict[str, Any]:
    """What tables and figures are a function of."""
    files = sorted(arguments.tables.glob("*.yaml"))
    again: list[Path] = []  # their results are read under both names
    for root in filter(Path.is_dir, (arguments.exp, *map(Path, roots))):
        below = files_below(root, again.append)
        files += sorted(path for path in below if path.name in READ and path.parent != root / "tables")
    settings = {name: str(getattr(arguments, name)) for name in ("only", "command", "out")}
    links = {"again": sorted(map(str, again))} if again else {}
    return {"version": __version__, **settings, **links, "files": {str(path): hash_file(path) for path in files}}


def _write(arguments: Any, chosen: list[Any], roots: list[str]) -> None:
    """Everything.

    Raises:
        UserError: some files cannot be used; what does not need them is written.
    """
    from speechlvm.reporting import figures, formats, latent_tables, render
    from speechlvm.reporting.analysis_results import collect_findings, mean_curves
    from speechlvm.reporting.collect import collect
    from speechlvm.reporting.compare import compare
    from speechlvm.utils.errors import UserError

    train_set = arguments.exp.name
    own, errors = collect(arguments.exp)
    cells = list(own)
    for root in roots:
        others, more = collect(Path(root), root)
        cells, errors = cells + others, errors + more
    comparisons = [compare(table, cells, train_set) for table in chosen]
    findings, more = collect_findings(arguments.exp)
    grids, errors = latent_tables.grids(findings), errors + more
    files = [(c.table.table, render.records(c), render.latex(c)) for c in comparisons]
    files += [(g.name, g.records, formats.latex_table(g.columns, g.rows, g.title, g.note)) for g in grids]
    for name, records, latex in files:
        for suffix, text in ((".csv", formats.csv_table(records)), (".tex", latex)):
            with atomic_write(arguments.exp / "tables" / f"{name}{suffix}") as stream:
                stream.write(text)
    errors += _draw(arguments.exp, own, comparisons)
    if panels := mean_curves(findings):
        figures.neighbours_figure(arguments.exp / "figures" / "neighbours", panels)
    text = render.document(comparisons, cells, grids, train_set, arguments.command, errors)
    with atomic_write(arguments.out) as stream:
        stream.write(text)
    print(text)
    print(f"written: {arguments.out}, {arguments.exp / 'tables'}, {arguments.exp / 'figures'}")
    if errors:
        more = f" (and {len(errors) - 1} more; {arguments.out} lists all)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}; everything else is in {arguments.out}")


def _draw(exp: Path, cells: list[Any], comparisons: list[Any]) -> list[str]:
    """Figures of what there is; returns a line for each file that cannot be used."""
    from speechlvm.coding import PCM_CODINGS
    from speechlvm.reporting import figures
    from speechlvm.reporting.collect import learning_curves
    from speechlvm.reporting.compare import sweep

    folder = exp / "figures"
    for name, coding in sorted({(cell.set, cell.coding) for cell in cells if cell.first.unit == "pmf"}):
        if coding not in PCM_CODINGS:
            figures.bits_figure(folder / f"bits_{name}_{coding}", cells, name, [coding])
    for name in sorted({cell.set for cell in cells if cell.coding in PCM_CODINGS}):
        figures.bits_figure(folder / f"bits_{name}_pcm", cells, name, PCM_CODINGS)
    for comparison in comparisons:
        if comparison.table.axis and (results := sweep(comparison)):
            figures.sweep_figure(folder / comparison.table.table, comparison.table, results)
    curves, errors = learning_curves(exp)
    discrete = {name: curve for name, curve in curves.items() if curve[0]["bits_per_frame"] is not None}
    densities = {name: curve for name, curve in curves.items() if name not in discrete}
    if discrete:
        figures.curves_figure(folder / "learning_curves", discrete, "bits_per_frame")
    if densities:
        figures.curves_figure(folder / "learning_curves_densities", densities, "nats_per_frame")
    return errors


if __name__ == "__main__":
    run_main(main)
