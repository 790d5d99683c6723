"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
# In front of numbers: bounds, "about", standard deviations, and the minus.
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


@dataclass(frozen=True)
class Grid:
    """A table in cells of text, and the same values with all digits.

    Attributes:
        name: of its files.
        title: above it.
        columns: heads.
        rows: cells.
        note: what its figures are.
        records: for CSV.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""
    records: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of neighbouring columns and the number of these; "" for those without a group."""
        return [(name, len(list(members))) for name, members in groupby(column.group for column in self.columns)]

    def markdown(self) -> str:
        """Markdown has one line of heads: the first of a group names it."""
        heads, before = [], ""
        for column in self.columns:
            heads.append(f"{column.group}: {column.name}" if column.group not in ("", before) else column.name)
            before = column.group
        return markdown_table(heads, self.rows)

    def latex(self) -> str:
        r"""A tabular with the rules of booktabs, for \input into a table; title and note are comments above it."""
        above, rules, place = [], "", 1
        for group, width in self.groups:
            above.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}" if group else " & ".join([""] * width))
            rules += rf"\cmidrule(lr){{{place}-{place + width - 1}}}" if group else ""
            place += width
        lines = [f"% {' '.join(text.split())}" for text in (self.title, self.note) if text]
        lines += [r"% needs \usepackage{booktabs}"]
        lines += [rf"\begin{{tabular}}{{{''.join('r' if column.number else 'l' for column in self.columns)}}}"]
        lines += [r"\toprule", *([" & ".join(above) + r" \\", rules] if rules else [])]
        lines += [_latex_row([column.name for column in self.columns]), r"\midrule"]
        lines += [_latex_row(row) for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def csv(self) -> str:
        """The records as CSV."""
        return csv_table(self.records)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, columns padded so that it also reads as plain text."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rendered = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([rendered[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rendered[1:]])


def csv_table(records: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a header, numbers with all their digits, None as nothing."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


def escaped(text: str) -> str:
    """Text for LaTeX, with bounds, standard deviations and signs of numbers as mathematics."""
    pieces, place = [], 0
    for sign in SIGN.finditer(text):
        pieces += ["".join(LATEX.get(c, c) for c in text[place : sign.start()]), SIGNS[sign.group()]]
        place = sign.end()
    return "".join([*pieces, *(LATEX.get(c, c) for c in text[place:])])


def _latex_row(cells: Sequence[str]) -> str:
    text = " & ".join(escaped(cell) for cell in cells)
    # after a line's end a bracket would be its distance to the next
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"
