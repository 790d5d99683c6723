"""Configurations: bases, overrides and defaults; what is wrong is one line, and nothing in a file is run."""

import json
import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from speechlvm.experiment import config
from speechlvm.experiment.config import load_config
from speechlvm.models import MODELS, model_class
from speechlvm.utils import settings
from speechlvm.utils.errors import ConfigError

CLIP = "  gradient_clip: 1.0"
MODEL_CONF = "{stack: 16, hidden: 12, layers: 1}"


def _auxiliary(name, settings):
    return f"\n  auxiliary: {{{name}: {{{settings}}}}}"


def _refused(path, overrides=()):
    with pytest.raises(ConfigError) as error:
        load_config(path, list(overrides))
    message = str(error.value)
    assert "\n" not in message and len(message) < 800
    return message


def test_defaults_and_overrides(tiny_config):
    experiment = load_config(tiny_config(), [("limits.steps", "7"), ("training.learning-rate.peak", "0.1")])
    assert experiment.limits.steps == 7 and experiment.training.learning_rate.peak == 0.1
    assert experiment.data.segment_frames == 1024 and experiment.training.precision == "float32"
    assert "'coding' is not a section" in _refused(tiny_config(), [("coding.x", "1")])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_the_resolved_copy_is_sufficient(tiny_config, tmp_path, model):
    fields = model_class(model).Config.model_fields
    required = {name: 16 for name, field in fields.items() if field.is_required()}
    experiment = load_config(
        tiny_config(
            ("model: lstm", f"model: {model}"),
            (MODEL_CONF, json.dumps(required)),
            ("peak: 0.005", "peak: 1.0e-7"),
            (CLIP, "  gradient_clip: null\n  initialise_from: '1e3'"),
            ("steps: 12", f"steps: {10**15}, seconds: 1.0e+16"),
        )
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(config.dump_yaml(experiment))
    assert load_config(path) == experiment
    written = yaml.safe_load(path.read_text())  # with every default, which may change
    assert written["model_conf"].keys() == fields.keys()
    assert written["training"].keys() == config.TrainingSettings.model_fields.keys()
    assert experiment.training.initialise_from == "1e3" and experiment.training.learning_rate.peak == 1e-7


# -- bases -------------------------------------------------------------------------------------------------------------

BASED = "base: tiny.yaml\n"


def test_a_base_holds_where_a_file_says_nothing_else(tiny_config, tmp_path):
    base = load_config(tiny_config())
    row = tmp_path / "sub/row.yaml"
    row.parent.mkdir()
    row.write_text("base: ../tiny.yaml\nmodel_conf: {hidden: 13}\ntraining:\n  learning_rate: {peak: 0.004}\n")
    found = load_config(row, [("limits.steps", "7")])
    expected = load_config(
        tiny_config(("hidden: 12", "hidden: 13"), ("peak: 0.005", "peak: 0.004"), ("steps: 12", "steps: 7"))
    )
    assert found == expected != base and "base" not in found.model_dump()
    assert found.training.learning_rate.schedule == base.training.learning_rate.schedule == "cosine"


def test_another_model_or_distribution_leaves_nothing_of_the_base_s_settings(tiny_config, tmp_path):
    base = load_config(tiny_config())
    assert base.model_conf["hidden"] == 12 and base.distribution_conf["components"] == 3
    row = tmp_path / "row.yaml"
    row.write_text(BASED + "model: wavenet\nmodel_conf: {channels: 8}\ndistribution: categorical\ncoding: mulaw8\n")
    found = load_config(row)
    assert found.model_conf["channels"] == 8 and found.model_conf["stack"] == 1 and found.distribution_conf == {}
    row.write_text(BASED + "model: lstm\ndistribution: dmol\n")
    assert load_config(row) == base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: none.yaml", r"row.yaml: base: .*none.yaml: cannot be read"),
        ("base: .", r"row.yaml: base: .*not a regular file"),
        ("base: [tiny.yaml]", r"row.yaml \(base: \['tiny.yaml'\]\): expected the path of a YAML file"),
        ("base: list.yaml", r"row.yaml: base: .*list.yaml: expected a mapping"),
        ("base: row.yaml", r"row.yaml \(base: 'row.yaml'\): the base has a base itself"),
        (BASED + "model_conf: {hiden: 1}", r"row.yaml \(base: 'tiny.yaml'\): model_conf: hiden: unknown key"),
        (BASED + "training: {base: tiny.yaml}", r"training.base: unknown key"),
    ],
)
def test_what_is_wrong_with_a_base_is_named_in_one_line(tiny_config, tmp_path, text, message):
    tiny_config()
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "row.yaml").write_text(text)
    assert re.search(message, found := _refused(tmp_path / "row.yaml")), found
    assert "unknown key" in _refused(tiny_config(), [("base", "tiny.yaml")])


# -- what may not change under an experiment ---------------------------------------------------------------------------


def test_limits_and_workers_are_not_frozen(tiny_config):
    one = load_config(tiny_config())
    two = load_config(tiny_config(), [("limits.steps", "70"), ("data.workers", "1")])
    three = load_config(tiny_config(), [("data.batch_frames", "2048")])
    assert one.frozen() == two.frozen() != three.frozen()


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  gradient_clip", "  gradient_clp", r"training.gradient_clp: unknown key; did you mean 'gradient_clip'\?"),
        ("hidden: 12", "hiden: 12", r"model_conf: hiden: unknown key; did you mean 'hidden'\?"),
        ("peak: 0.005", "peak: '5e-3'", r"peak: .*number; found '5e-3' \(str\); write it without quotation marks"),
        ("peak: 0.005", "peak: fast", r"peak: .*valid number; found 'fast' \(str\)$"),
        ("batch_frames: 4096", "batch_frames: 0", r"data.batch_frames: .*greater than 0; found 0"),
        ("batch_frames: 4096", "batch_frames: 512", r"data: segment_frames 1024 exceeds batch_frames 512"),
        ("batch_frames: 4096", "batch_frames: 4096, max_frames: 9", r"data: segment_frames 1024 exceeds max_frames 9"),
        ("hidden: 12", "hidden: 1000000000", r"model_conf: hidden: .*less than"),
        (
            f"model: lstm\nmodel_conf: {MODEL_CONF}",
            "model: zforcing\nmodel_conf: {stack: 16, conditional_layer_norm: true, initialisation: transform}",
            r"initialisation transform cannot be used with conditional_layer_norm; expected plain",
        ),
        (
            "stack: 16",
            "experts: adaptive, stack: 16",
            r"experts know one frame ahead, and not 16; expected stack 1",
        ),
        (
            "stack: 16",
            "experts: adaptive, stack: 1",
            r"model_conf.experts: .*; expected coding linear",
        ),
        ("stack: 16", "experts: flac, stack: 1", r"model_conf: experts: .*'adaptive'"),
        ("coding: mulaw", "coding: alaw", r"coding: 'alaw' is unknown; expected one of mulaw, .*, normalised"),
        ("model: lstm", "model: lstmm", r"model: 'lstmm' is unknown; expected one of cwvae, lstm"),
        ("coding: mulaw", "coding: alaw", r"coding: 'alaw' is unknown"),
        ("distribution: dmol", "distribution: dmoll", r"distribution: 'dmoll' is unknown"),
        ("components: 3", "components: -3", r"components"),
        ("coding: mulaw", "coding: normalised", r"dmol"),
        ("limits: {steps: 12}", "limits: {}", r"limits: give at least one of steps, epochs, seconds"),
        ("limits: {steps: 12}", "limits: [12]", r"limits: .*found \[12\]"),
        ("steps: 12", "steps: yes", r"limits.steps: input should be a valid integer; found True \(bool\)"),
        ("steps: 12", "seconds: 1:30", r"not valid YAML: line \d+: '1:30' is not a decimal number"),
        (
            CLIP,
            CLIP + _auxiliary("a", "initial: 1.0, final: 0.0, steps: 5"),
            r"training.auxiliary: unknown loss 'a' for lstm; it has",
        ),
        (CLIP, CLIP + "\n  particles: 4", r"training.particles: lstm has no latents; leave it out"),
        (
            CLIP,
            CLIP + "\n  particles: 4\n  free_nats: 1",
            r"training: particles trains with FIVO, which has no KL terms",
        ),
        (CLIP, CLIP + _auxiliary("a", "initial: 1.0, final: 0.0"), r"training.auxiliary.a.steps: missing"),
        (CLIP, f"{CLIP}\n  free_nats_steps: 9", r"training: free_nats_steps and free_nats_unit have no effect without"),
        (CLIP, CLIP + _auxiliary("a", "initial: 1.0, end: 0.0, steps: 5"), r"auxiliary.a.end: .*initial, final, steps"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tiny_config, old, new, expected):
    assert re.search(expected, message := _refused(tiny_config((old, new)))), message


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("kl_weight", {"initial": 0.2, "steps": 500}, "have no effect with schedule constant"),
        ("kl_weight", {"schedule": "linear", "initial": 0.2}, "schedule linear needs steps"),
        ("learning_rate", {"peak": 0.1, "schedule": "exponential", "decay_steps": 10}, "needs decay_steps"),
        ("learning_rate", {"peak": 0.1, "schedule": "cosine", "decay_rate": 0.9}, "decay_rate 0.9 has no effect"),
        ("learning_rate", {"peak": 0.1, "decay_steps": 9}, "decay_steps has no effect with schedule constant"),
        ("learning_rate", {"peak": 0.1, "schedule": "constant-decay", "decay_steps": 9}, "schedule constant-decay"),
        ("learning_rate", {"peak": 0.1, "schedule": "cosine", "final": 0.2}, "final 0.2 exceeds peak 0.1"),
    ],
)
def test_schedules_that_cannot_be_meant_are_refused(section, values, message):
    with pytest.raises(ConfigError, match=message):
        settings.validated(
            {"kl_weight": config.KLWeight, "learning_rate": config.LearningRate}[section], values, "a.yaml"
        )


# -- YAML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("1E-3", 0.001), ("+1e-3", 0.001), (".5e-3", 0.0005), ("5.e-4", 0.0005)]
)
def test_exponents_are_numbers(text, number):
    assert settings.parse_yaml(f"peak: {text}", "") == {"peak": number}
    assert yaml.safe_load("1e-3") == "1e-3"  # not so in YAML 1.1


def test_whole_numbers_with_exponents_count(tiny_config):
    found = load_config(tiny_config(), [("limits.steps", "1e3"), ("data.batch_frames", "+2E4")])
    assert (found.limits.steps, found.data.batch_frames) == (1000, 20000)
    assert "input should be a valid integer; found 0.1 (float)" in _refused(tiny_config(), [("limits.steps", "1e-1")])
    assert "input should be a finite number" in _refused(tiny_config(), [("training.gradient_clip", "1e999")])
    assert "'1e-3000' is not a decimal number" in _refused(tiny_config(), [("training.gradient_clip", "1e-3000")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.mkdir [CANARY]", "tags are not allowed"),
        ("model: !!python/name:os.system", "tags are not allowed"),
        ("%TAG !p! tag:yaml.org,2002:python/\n---\nmodel: !p!object/apply:os.mkdir [CANARY]", "tags are not allowed"),
        ("? !!python/object/apply:os.mkdir [CANARY]\n: x", "tags are not allowed"),
        ("a: &a [x]\nb: *a", "aliases are not allowed"),
        ("model: lstm\n'model': lstm", "key 'model' is given twice"),
        ("{? [a] : b}", "is not text"),
        ("model: [lstm", "not valid YAML"),
        ("model: lstm\n---\nmodel: lstm", "not valid YAML"),
        ("{a: " * 20_000, "nested too deeply"),
        ("model: 010", "'010' is not a decimal number"),
        ("model: 2001-99-99", "not valid YAML"),
        ("model: " + "9" * 5000, "not valid YAML"),
    ],
    ids=lambda text: text[:30],
)
def test_yaml_runs_nothing_and_is_refused_in_one_line(tiny_config, tmp_path, text, message):
    canary, path = tmp_path / "canary", tmp_path / "evil.yaml"
    path.write_text(text.replace("CANARY", str(canary)))
    assert (found := _refused(path)).startswith(f"{path}:") and message in found
    if "\n" not in text:  # as the value of an option
        _refused(tiny_config(), [("data.workers", text.replace("CANARY", str(canary)))])
    assert not canary.exists()


@pytest.fixture
def in_time():
    """What blocks fails."""

    def late(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def test_what_is_no_small_file_of_settings_is_not_read(tmp_path, in_time):
    sparse, listing = tmp_path / "sparse.yaml", tmp_path / "list.yaml"
    with open(sparse, "wb") as stream:
        stream.truncate(100_000_000)
    assert "100000000 bytes; a configuration has at most" in _refused(sparse)
    os.mkfifo(tmp_path / "pipe.yaml")  # would block
    for path in (tmp_path / "pipe.yaml", Path("/dev/null"), tmp_path):
        assert "not a regular file" in _refused(path)
    assert "no such file" in _refused(tmp_path / "none.yaml")
    listing.write_text("- a\n")
    assert "expected a mapping" in _refused(listing)
