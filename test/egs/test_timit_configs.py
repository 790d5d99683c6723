"""The configurations of the recipes: each resolves, builds, is in a table, and says in which."""

import re
from pathlib import Path

import pytest
import torch

from speechlvm.experiment.config import load_config
from speechlvm.experiment.load import build
from speechlvm.observation import AudioObservation, Statistics
from speechlvm.reporting.tables import load_tables

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {name: ROOT / "egs" / name / "conf" for name in ("timit", "mini", "blizzard")}
CONFIGS = [path for conf in RECIPES.values() for path in sorted(conf.glob("*.yaml"))]
TABLES = {name: load_tables(conf / "tables") for name, conf in RECIPES.items()}
# What the comments of TIMIT's configurations call the tables.
PHRASES = {
    "A1": r"source a, table 1\b",
    "A3": r"source a, table 3|source a, table 1 and table 3",
    "A4": r"source a, table 4\b",
    "B1": r"source b, table 1\b",
    "B4b": r"source b, (table 1 and )?figures? 4b\b",
    "B5b": r"source b, figures? (4b and )?5b\b",
    "ours": r"^ours.*table ours\b",
    "softmax": r"^ours.*table softmax\b",
}


def of(path):
    """The tables and rows that a configuration is in."""
    tables = TABLES[path.parent.parent.name]
    return [(table, row) for table in tables for row in table.rows if row.experiment == path.stem]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_configuration_builds_and_fits_the_tables_it_is_in(path):
    config = load_config(path)
    with torch.device("meta"):  # shapes without memory
        model = build(config, AudioObservation(config.coding, Statistics(0.0, 0.1)), seed=1)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1000
    places = of(path)
    assert places, "in no table"
    for table, row in places:
        assert config.coding == table.coding
        assert model.distribution.continuous == table.densities
        assert row.s == model.stack
        # the name of the output in densities' rows is a promise about it
        assert row.distribution == (config.distribution if table.densities or table.coding == "mulaw8" else None)
        for word, name in (("Normal", "gaussian"), ("GMM", "gmm")):
            assert word not in row.configuration or config.distribution == name


# What the letters in a row's configuration are called in model_conf; not every system has each.
SETTINGS = {
    "Dd": ("hidden",),
    "Dc": ("channels",),
    "Dz": ("latent", "width"),
    "L": ("layers", "levels"),
    "S": ("stochastic_layers",),
}


@pytest.mark.parametrize(
    ("path", "text"),
    [(p, row.configuration) for p in CONFIGS for _, row in of(p) if re.search(r"=\d", row.configuration)],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_the_sizes_in_a_row_are_those_of_its_configuration(path, text):
    conf = load_config(path).model_conf
    for names, size in re.findall(r"((?:\w+=)+)(\d+)", text):
        for name in names.strip("=").split("="):  # S=L=5
            [setting] = [setting for setting in SETTINGS[name] if setting in conf]
            assert conf[setting] == int(size), f"{name}={size}, {setting}"


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.parent == RECIPES["timit"]], ids=lambda path: path.stem)
def test_a_comment_names_the_tables(path):
    first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").lower()
    named = {name for name, phrase in PHRASES.items() if re.search(phrase, first)}
    assert named == {table.table for table, _ in of(path)}


def test_floors_are_the_published_ones():
    floors = {
        row.experiment: load_config(RECIPES["timit"] / f"{row.experiment}.yaml").distribution_conf["minimum_std"]
        for table in TABLES["timit"]
        if table.densities
        for row in table.rows
        if row.experiment
    }
    own = {"wavenet_s1_c96_normal", "cwvae_s200_z96_l1_normal"}
    assert {name for name, floor in floors.items() if floor == 0.01} == own
    # source B's systems have no floor; STCN's authors, whose WaveNets have 256 channels, have one
    assert {floor for name, floor in floors.items() if "stcn" in name or "_c256_" in name} == {0.001}
    rest = {name for name in floors if name not in own and "stcn" not in name and "_c256_" not in name}
    assert {floors[name] for name in rest} == {0.0} and len(rest) == 5 + 6 + 6


def test_the_sweeps_are_those_of_the_figures():
    tables = {table.table: table for table in TABLES["timit"]}
    settings = {
        name: {row.at: load_config(RECIPES["timit"] / f"{row.experiment}.yaml").model_conf for row in table.rows}
        for name, table in tables.items()
        if table.axis
    }
    assert set(settings) == {"B4b", "B5b"}
    assert list(settings["B4b"]) == [1, 2, 3, 4, 5]
    for at, conf in settings["B4b"].items():
        assert (conf["layers"], conf["stochastic_layers"], conf["latent_total"]) == (5, at, 500)
    for at, conf in settings["B5b"].items():
        assert (conf["layers"], conf["stochastic_layers"], conf["latent_total"]) == (5, 4, at)
