"""Stage 10: the papers' tables with our figures beside, and figures, from result.json files alone."""

from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main


def main(argv: list[str] | None = None) -> int:
    """Write RESULTS.md and figures; print the tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--exp", type=Path, required=True, help="exp/<train_set>")
    parser.add_argument("--tables", type=Path, required=True, help="directory of the tables' YAML files")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--only", default="", help="names of the tables to print, for instance 'A1 A3' (default: all)")
    parser.add_argument("--command", default="bash run.sh", help="the command that made the results")
    arguments = parser.parse_args(argv)

    from speechlvm.coding import PCM_CODINGS
    from speechlvm.files import atomic_write
    from speechlvm.reporting import figures, tables
    from speechlvm.reporting.collect import collect, learning_curves

    chosen = tables.choose(tables.load_tables(arguments.tables), arguments.only.split())
    cells = collect(arguments.exp)
    others = [cell for root in tables.roots(chosen) for cell in collect(Path(root), root)]
    text = tables.render(chosen, cells + others, arguments.exp.name, arguments.command)
    with atomic_write(arguments.out) as stream:
        stream.write(text)
    print(text)
    folder = arguments.exp / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, coding in sorted({(c.set, c.coding) for c in cells if c.first["unit"] == "pmf"}):
        if coding in PCM_CODINGS:
            figures.bits_figure(folder / f"bits_{name}_pcm.png", cells, name, PCM_CODINGS)
        else:
            figures.bits_figure(folder / f"bits_{name}_{coding}.png", cells, name, [coding])
    for table in chosen:
        if table.axis and (results := tables.sweep(table, cells + others)):
            figures.sweep_figure(folder / f"{table.table}.png", table, results)
    curves = learning_curves(arguments.exp)
    discrete = {name: curve for name, curve in curves.items() if curve[0]["bits_per_frame"] is not None}
    densities = {name: curve for name, curve in curves.items() if name not in discrete}
    if discrete:
        figures.curves_figure(folder / "learning_curves.png", discrete, "bits_per_frame")
    if densities:
        figures.curves_figure(folder / "learning_curves_densities.png", densities, "nats_per_frame")
    print(f"written: {arguments.out}, figures in {folder}")
    return 0


if __name__ == "__main__":
    run_main(main)
