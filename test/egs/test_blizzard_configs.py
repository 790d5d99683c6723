"""Blizzard's configurations and tables are source B's (that each builds is tested with those of the other recipes)."""

from pathlib import Path

from speechlvm.experiment.config import load_config
from speechlvm.reporting.tables import load_tables

CONF = Path(__file__).resolve().parents[2] / "egs/blizzard/conf"
CONFIGS = {path.stem: load_config(path) for path in sorted(CONF.glob("*.yaml"))}
TABLES = {table.table: table for table in load_tables(CONF / "tables")}


def test_published_figures():
    assert [(row.mark, row.published["test"]) for row in TABLES["B1"].rows] == [
        ("", 7413), (">=", 9392), (">=", 11991), (">=", 14226), (">=", 15024), ("", -5777), (">=", 15708),
    ]  # fmt: skip
    for table in TABLES.values():
        assert (table.unit, table.coding, "Blizzard" in table.title) == ("nats_per_utterance", "normalised", True)


def test_sizes_and_lengths_that_are_stated():
    for name, config in CONFIGS.items():
        assert config.model_conf["stack"] == 200 and config.data.segment_frames == 40 * 200
        assert config.data.batch_frames == 128 * config.data.segment_frames
        assert config.limits.steps == 40 * (2040064 // 128) and config.validation.every_steps == 2040064 // 128
        assert config.distribution == "gaussian" and config.distribution_conf == {"minimum_std": 0.0}
        assert (CONF / f"{name}.yaml").read_text().startswith("# Source B, ")
        if config.model == "stochastic_wavenet":
            assert (config.model_conf["layers"], config.model_conf["channels"]) == (5, 1024)
            assert config.training.kl_weight.steps == config.limits.steps / 2
        if config.model == "zforcing":
            assert (config.model_conf["state"], config.model_conf["latent"]) == (2048, 256)


def test_sweeps():
    settings = {
        name: {row.at: CONFIGS[row.experiment].model_conf for row in table.rows}
        for name, table in TABLES.items()
        if table.axis
    }
    assert set(settings) == {"B4a", "B5a"} and list(settings["B4a"]) == [1, 2, 3, 4, 5]
    assert all(conf["stochastic_layers"] == at and conf["latent_total"] == 500 for at, conf in settings["B4a"].items())
    assert all(conf["stochastic_layers"] == 4 and conf["latent_total"] == at for at, conf in settings["B5a"].items())
