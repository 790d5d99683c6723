"""Markdown, LaTeX and CSV of grids: escaping, and LaTeX that a TeX would read."""

import csv
import io
import re
from pathlib import Path

import pytest

from speechlvm.distributions import DISTRIBUTIONS
from speechlvm.reporting.compare import compare
from speechlvm.reporting.formats import Column, Grid, csv_table, escaped, markdown_table
from speechlvm.reporting.published import published_grid
from speechlvm.reporting.tables import load_tables

EGS = Path(__file__).resolve().parents[3] / "egs"
COMMANDS = {"begin", "end", "toprule", "midrule", "bottomrule", "cmidrule", "multicolumn", "textbackslash"}
COMMANDS |= {"textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "leq", "geq", "pm", "sim"}
TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)


def read_latex(text):
    """Rows of cells of a tabular; insists on what TeX does: braces, mathematics, specials, columns, commands."""
    text = re.sub(r"(?<!\\)%[^\n]*\n", "", text)
    inside = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}\n(.*)\\end\{tabular\}\n", text, re.DOTALL)
    assert inside, text
    depth, mathematics, rows = 0, False, [[""]]
    for token in TOKEN.findall(inside[2]):
        if len(token) > 1 and token[1].isalpha():
            assert token[1:] in COMMANDS, token
            assert (token[1:] in ("leq", "geq", "pm", "sim")) == mathematics, token
        elif token == "$":
            mathematics = not mathematics
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        elif token == r"\\":
            assert depth == 0 and not mathematics
            rows.append([""])
            continue
        elif token == "&":
            assert depth == 0 and not mathematics
            rows[-1].append("")
            continue
        else:
            assert token not in "#_^~<>|" or mathematics, f"{token} in {rows[-1]}"
        rows[-1][-1] += token
    assert depth == 0 and not mathematics
    for row in rows[:-1]:
        spans = [int(span) for cell in row for span in re.findall(r"\\multicolumn\{(\d+)\}", cell)]
        assert len(row) - len(spans) + sum(spans) == len(inside[1]), row
        assert not row[0].lstrip("\n").startswith(("[", "*"))
    return [[cell.strip() for cell in row] for row in rows[:-1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 % of #1 {x} $", r"a\_b \& 5 \% of \#1 \{x\} \$"),
        ("\\n ~ ^2", r"\textbackslash{}n \textasciitilde{} \textasciicircum{}2"),
        ("<=12.54", r"$\leq$12.54"),
        (">=-31160", r"$\geq$$-$31160"),
        ("~28982", r"$\sim$28982"),
        ("-7443 +-12", r"$-$7443 $\pm$12"),
        ("+1.5", "+1.5"),
        ("std >= 0.01, a < b > c | d", r"std $\geq$ 0.01, a \textless{} b \textgreater{} c \textbar{} d"),
        ("STCN-dense, 1-5, 1e-05, -", "STCN-dense, 1-5, 1e-05, -"),
    ],
)
def test_text_is_escaped_and_signs_are_mathematics(text, expected):
    assert escaped(text) == expected


def test_a_grid_is_a_tabular_under_two_lines_of_heads():
    columns = [Column("s", number=True), Column("a_b"), Column("ours", "dev & test"), Column("theirs", "dev & test")]
    columns += [Column("x", "test")]
    rows = [["1", "[2] 100 %", "<=3", "+-4", ""], ["[5]", "*", "~6", "-7", "{"]]
    text = Grid("", "a\nb % c", columns, rows, "n").latex()
    assert text.startswith("% a b % c\n% n\n% needs \\usepackage{booktabs}\n\\begin{tabular}{rllll}\n\\toprule\n")
    rows = read_latex(text)
    assert rows[0] == [r"\toprule", "", r"\multicolumn{2}{c}{dev \& test}", r"\multicolumn{1}{c}{test}"]
    assert rows[1] == ["\\cmidrule(lr){3-4}\\cmidrule(lr){5-5}\ns", r"a\_b", "ours", "theirs", "x"]
    assert rows[2] == ["\\midrule\n1", r"[2] 100 \%", r"$\leq$3", r"$\pm$4", ""]
    assert rows[3] == ["{}[5]", "*", r"$\sim$6", "$-$7", r"\{"]


def test_a_grid_without_groups_has_one_line_of_heads():
    assert len(read_latex(Grid("", "t", [Column("a"), Column("b")], [["1", "2"]]).latex())) == 2


@pytest.mark.parametrize("directory", sorted(EGS.glob("*/conf/tables")), ids=lambda path: path.parts[-3])
def test_tables_of_all_recipes(directory):
    for table in load_tables(directory):
        assert {row.distribution for row in table.rows} <= {None, *DISTRIBUTIONS}
        rows = read_latex(published_grid(compare(table, [], "train")).latex())
        assert [row[1] for row in rows[2:]] == [escaped(row.system) for row in table.rows]


def test_markdown_names_groups_once_and_escapes_bars():
    columns = [Column("s"), Column("published", "test"), Column("ours", "test"), Column("ours", "dev")]
    heads = Grid("", "t", columns, []).markdown().splitlines()[0]
    assert heads == "| s | test: published | ours | dev: ours |"
    assert markdown_table(["a", "bb"], [["x|y", ""], ["1", "2"]]) == (
        "| a    | bb |\n|------|----|\n| x\\|y |    |\n| 1    | 2  |"
    )


def test_csv_keeps_digits_commas_and_blanks():
    text = csv_table([{"a": 'x, "y"', "b": 1 / 3, "c": None}, {"a": "é\nz", "b": 2, "c": 0.1}])
    assert text.startswith("a,b,c\n") and "\r" not in text
    first, second = csv.DictReader(io.StringIO(text))
    assert first == {"a": 'x, "y"', "b": "0.3333333333333333", "c": ""}
    assert second == {"a": "é\nz", "b": "2", "c": "0.1"}
