"""Grids of text as Markdown and as LaTeX, records as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
# As tables write them: bounds and what is about a number before it, deviations before it too, and its sign.
SIGNS = {"<=": r"$\leq$", ">=": r"$\geq$", "+-": r"$\pm$", "~": r"$\sim$", "-": "$-$"}
SIGN = re.compile(r"<=|>=|\+-|~(?=[-\d])|(?<![\w.+-])-(?=\d)")


@dataclass(frozen=True)
class Column:
    """One column of a grid.

    Attributes:
        name: its head.
        group: what neighbouring columns have in common, named above them; "" if nothing.
        number: whether it holds numbers, which LaTeX sets flush right.
    """

    name: str
    group: str = ""
    number: bool = False


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, columns padded so that it also reads as plain text."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([rendered[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rendered[1:]])


def markdown_heads(columns: Sequence[Column]) -> list[str]:
    """Heads for Markdown, which has one line of them: the first of a group names it."""
    heads = []
    for group, members in groupby(columns, key=lambda column: column.group):
        names = [column.name for column in members]
        heads += [f"{group}: {names[0]}", *names[1:]] if group else names
    return heads


def escaped(text: str) -> str:
    """Text for LaTeX, with bounds, deviations and signs of numbers as mathematics."""
    pieces, place = [], 0
    for sign in SIGN.finditer(text):
        pieces += ["".join(LATEX.get(c, c) for c in text[place : sign.start()]), SIGNS[sign.group()]]
        place = sign.end()
    return "".join([*pieces, *(LATEX.get(c, c) for c in text[place:])])


def latex_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], title: str, note: str = "") -> str:
    r"""A tabular with the rules of booktabs, to be put into a table by \input; title and note are comments above it."""
    groups = [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]
    above, rules, place = [], "", 1
    for group, width in groups:
        above.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}" if group else " & ".join([""] * width))
        rules += rf"\cmidrule(lr){{{place}-{place + width - 1}}}" if group else ""
        place += width
    lines = [f"% {' '.join(text.split())}" for text in (title, note) if text]
    lines += [r"% needs \usepackage{booktabs}"]
    lines += [rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in columns)}}}", r"\toprule"]
    lines += [" & ".join(above) + r" \\", rules] if rules else []
    lines += [_latex_row([column.name for column in columns]), r"\midrule"]
    lines += [_latex_row(row) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    text = " & ".join(escaped(cell) for cell in cells)
    # after a line's end a bracket would be its distance to the next
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a header, numbers with all their digits, None as nothing."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()
