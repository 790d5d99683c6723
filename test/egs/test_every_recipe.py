"""Every folder of egs/ is a whole recipe: files, options, configurations, tables, README. The template is one, too."""

import re
import subprocess
from pathlib import Path

import pytest

from speechlvm.bin.baseline import BASELINES
from speechlvm.coding import CONTINUOUS
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import SAME_INPUTS
from speechlvm.reporting.tables import load_tables

EGS = Path(__file__).resolve().parents[2] / "egs"
RECIPES = sorted(path.parent for path in EGS.glob("*/run.sh"))
CONFS = sorted([*(recipe / "conf" for recipe in RECIPES), EGS / "TEMPLATE/vectors/conf"])
FILES = ("cmd.sh", "path.sh", "db.sh", "utils", "local/download.sh", "local/data.sh", "README.md")
SOURCED = ("utils/options.sh", "utils/parse_options.sh", "utils/stages.sh")
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)


def git(*words):
    command = ["git", "-c", "safe.directory=*", *words, "-z"]
    listed = subprocess.run(command, cwd=EGS, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split("\0")[:-1]


@every_recipe
def test_it_has_the_files_that_all_have(recipe):
    assert [name for name in FILES if not (recipe / name).exists()] == []
    assert (recipe / "utils").resolve() == EGS.parent / "utils"
    text = (recipe / "run.sh").read_text(encoding="utf-8")
    places = [text.find(f"\n. {name}\n") for name in SOURCED]
    assert -1 not in places and places == sorted(places)
    corpus = re.search(r"(?m)^[A-Z_]+=", (recipe / "db.sh").read_text(encoding="utf-8"))
    assert corpus is None or "\n. ./db.sh\n" in text
    for name in ("train_set", "valid_set", "test_sets"):
        assert re.search(rf"(?m)^\s*{name}=.*\w", text), name


@every_recipe
def test_help_explains_every_option(recipe):
    shown = subprocess.run(["bash", recipe / "run.sh", "--help"], cwd="/", capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    options = re.findall(r"(?m)^  --(\w+) +(.*?) *\(.*\)$", shown.stdout)
    assert len(options) > 30 and [name for name, explanation in options if not explanation] == []
    for script in ("local/download.sh", "local/data.sh"):
        assert subprocess.run(["bash", script, "--help"], cwd=recipe, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: path.parent.name)
def test_rows_and_configurations_belong_together(conf):
    configs = {path.stem: load_config(path) for path in conf.glob("*.yaml")}
    tables = load_tables(conf / "tables")
    assert configs and tables
    rows = [(table, row) for table in tables for row in table.rows if row.experiment and not row.root]
    assert {row.experiment for _, row in rows} - BASELINES.keys() == configs.keys()
    run = (EGS / conf.relative_to(EGS).parts[0] / "run.sh").read_text(encoding="utf-8")
    for table, row in rows:
        assert all(name in table.frames_per_utterance or re.search(rf"\b{name}\b", run) for name in table.sets), table
        if config := configs.get(row.experiment):
            assert table.densities == (config.coding == CONTINUOUS), row
            assert table.coding in {config.coding}.union(*(same for same in SAME_INPUTS if config.coding in same)), row
            assert row.distribution in (None, config.distribution), row
    for path in conf.glob("*.yaml"):
        assert re.match(r"# \w", path.read_text(encoding="utf-8")), f"{path}: which row of which table is it?"


@every_recipe
def test_the_readme_says_how_to_run_it(recipe):
    text = (recipe / ("RECIPE.md" if recipe.name == "TEMPLATE" else "README.md")).read_text(encoding="utf-8")
    assert re.match(r"# \S", text) and "bash run.sh" in text


def test_nothing_that_recipes_make_is_tracked_and_nothing_is_left_to_fill_in():
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
    for name in git("ls-files"):
        path = EGS / name
        if path.is_file() and not name.startswith("TEMPLATE/"):
            assert "FILL IN" not in path.read_text(encoding="utf-8"), name
