"""Every folder of egs/ is a whole recipe: files, options, configurations, tables, README. The template is one, too."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from speechlvm.bin.baseline import BASELINES
from speechlvm.data.corpora.download import load_archives
from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import SAME_INPUTS, build
from speechlvm.observation import AudioObservation, Statistics, VectorObservation
from speechlvm.reporting.tables import load_tables

EGS = Path(__file__).resolve().parents[2] / "egs"
RECIPES = sorted(path.parent for path in EGS.glob("*/run.sh"))
CONFS = sorted([*(recipe / "conf" for recipe in RECIPES), EGS / "TEMPLATE/vectors/conf"])
CONFIGS = [path for conf in CONFS for path in sorted(conf.glob("*.yaml"))]
TABLES = {conf: load_tables(conf / "tables") for conf in CONFS}
FILES = ("cmd.sh", "path.sh", "db.sh", "utils", "local/download.sh", "local/data.sh", "README.md")
SOURCED = ("utils/options.sh", "utils/parse_options.sh", "utils/stages.sh")
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)


def git(*words):
    command = ["git", "-c", "safe.directory=*", *words, "-z"]
    listed = subprocess.run(command, cwd=EGS, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split("\0")[:-1]


def bash(recipe, *words):
    return subprocess.run(["bash", *words], cwd=EGS / recipe, capture_output=True, text=True, timeout=1200, check=False)


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
    tests = EGS.parent / f"test/egs/test_{recipe.name.lower()}.py"
    assert tests.exists(), f"{tests} is missing"
    assert recipe.name == "mini" or "@pytest.mark.recipe" in tests.read_text(encoding="utf-8")  # .ci/run runs mini


@every_recipe
def test_help_explains_every_option(recipe):
    shown = subprocess.run(["bash", recipe / "run.sh", "--help"], cwd="/", capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    options = re.findall(r"(?m)^  --(\w+) +(.*?) *\(.*\)$", shown.stdout)
    assert len(options) > 30 and [name for name, explanation in options if not explanation] == []
    for script in ("local/download.sh", "local/data.sh"):
        assert bash(recipe, script, "--help").returncode == 0


@pytest.mark.parametrize("recipe", ["timit", "blizzard", "iam_ondb", "wavdir", "festvox_ru", "TEMPLATE"])
def test_stage_0_says_where_a_corpus_that_is_not_downloaded_is_set(recipe, tmp_path):
    [name] = re.findall(r"(?m)^([A-Z_]+)=", (EGS / recipe / "db.sh").read_text(encoding="utf-8"))
    option = "--wav_dir" if recipe == "wavdir" else "--corpus"
    done = bash(recipe, "local/download.sh", option, tmp_path / "none")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    for word in (f"'{tmp_path}/none'", f"{name}= in db.sh", f"--{name.lower()} DIR"):
        assert word in done.stderr
    assert bash(recipe, "local/download.sh", option, tmp_path).returncode == 0


@pytest.mark.parametrize("path", sorted(EGS.glob("*/local/archives.yaml")), ids=lambda path: path.parents[1].name)
def test_archives_unpack_to_where_the_corpus_is_looked_for(path):
    default = re.search(r":-([^}]*)}", (path.parents[1] / "db.sh").read_text(encoding="utf-8"))[1]
    archives = load_archives(path).archives
    for archive in archives:
        assert f"downloads/{archive.content}/".startswith(f"{default}/"), archive
        assert not archive.bytes or archive.max_unpacked_bytes > archive.bytes
    assert len({archive.file for archive in archives}) == len(archives) > 0


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: path.parent.name)
def test_rows_and_configurations_belong_together(conf):
    names = {path.stem for path in conf.glob("*.yaml")}
    rows = [(table, row) for table in TABLES[conf] for row in table.rows if row.experiment and not row.root]
    assert names and {row.experiment for _, row in rows} - BASELINES.keys() == names
    run = (EGS / conf.relative_to(EGS).parts[0] / "run.sh").read_text(encoding="utf-8")
    for table in TABLES[conf]:
        assert all(name in table.frames_per_utterance or re.search(rf"\b{name}\b", run) for name in table.sets), table
    for path in conf.glob("*.yaml"):
        assert re.match(r"# \w", path.read_text(encoding="utf-8")), f"{path}: which row of which table is it?"


def observation(path, config):
    """What the models of a recipe are shown."""
    recipe = EGS / path.relative_to(EGS).parts[0]
    if "vectors" not in path.parts and "\nmaterial=vectors\n" not in (recipe / "run.sh").read_text(encoding="utf-8"):
        return AudioObservation(config.coding, Statistics(0.0, 0.1))
    kinds = {"bernoulli_bivariate": ("binary", "real", "real")}.get(config.distribution, ("real",) * 56)
    return VectorObservation({str(i): kind for i, kind in enumerate(kinds)}, np.zeros(len(kinds)), np.ones(len(kinds)))


# What the letters in a row's configuration are called in model_conf; not every system has each.
SETTINGS = {
    "Dd": ("hidden",),
    "Dc": ("channels",),
    "Dz": ("latent", "width"),
    "L": ("layers", "levels"),
    "S": ("stochastic_layers",),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_configuration_builds_and_is_what_its_rows_say(path):
    config = load_config(path)
    if "initialisation" in config.model_conf:  # equal starts are a matter of comparison, not a default
        base = re.search(r"(?m)^base: (\S+)$", text := path.read_text(encoding="utf-8"))
        text += (path.parent / base[1]).read_text(encoding="utf-8") if base else ""
        assert f"initialisation: {config.model_conf['initialisation']}" in text
    seen = observation(path, config)
    with torch.device("meta"):  # shapes without memory
        model = build(config, seen, seed=1)
    for table in TABLES[path.parent]:
        for row in (row for row in table.rows if row.experiment == path.stem):
            assert table.coding in {config.coding}.union(*(same for same in SAME_INPUTS if config.coding in same)), row
            assert model.distribution.continuous == table.densities and row.s == model.stack, row
            # the name of the output in densities' rows is a promise about it
            named = table.densities or table.coding == "mulaw8"
            assert row.distribution == (config.distribution if named else None), row
            for word, name in (("Normal", "gaussian"), ("GMM", "gmm")):
                assert word not in row.configuration or config.distribution == name, row
            for letters, size in re.findall(r"((?:\w+=)+)(\d+)", row.configuration):
                for letter in letters.strip("=").split("="):  # S=L=5
                    names = SETTINGS.get(letter, ())
                    sizes = [config.model_conf[name] for name in names if name in config.model_conf]
                    assert sizes == [int(size)], f"{row}: {letter} is {names} by SETTINGS, {sizes} in model_conf"
            sweep = {"4": "stochastic_layers", "5": "latent_total"}[table.table[1]] if table.axis else None
            assert sweep is None or row.at == config.model_conf[sweep], row


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: path.parent.name)
def test_rows_of_a_table_that_train_on_whole_utterances_take_equal_steps(conf):
    for table in TABLES[conf]:
        names = {row.experiment for row in table.rows if row.experiment and not row.root} - BASELINES.keys()
        configs = [load_config(conf / f"{name}.yaml") for name in names]
        whole = [config for config in configs if config.data.segment_frames is None]
        assert len({config.data.batch_frames * config.training.accumulate for config in whole}) <= 1, table.table


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
