"""Generated configurations: valid ones come back as they were, damaged ones are refused in one line with the key."""

import json
import math
import re

import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from speechlvm.coding import CODINGS
from speechlvm.distributions import DISTRIBUTIONS
from speechlvm.experiment import config
from speechlvm.models import MODELS, model_class
from speechlvm.observation import CONTINUOUS
from speechlvm.utils.errors import ConfigError

SOME_OF = settings(suppress_health_check=list(HealthCheck))
SIZES = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 64, 200, 4096])
SHARES = st.floats(0, 1, allow_subnormal=False)
ABOVE = st.floats(1e-9, 1e6)


def some(fixed, optional):
    """A mapping with all of one and some of the other."""
    return st.fixed_dictionaries(fixed, optional=optional)


RATES = st.floats(1e-12, 10, exclude_min=True)
LEARNING_RATES = st.one_of(
    some({"peak": RATES}, {"warmup_steps": st.integers(0, 10**6)}),
    some({"peak": RATES, "schedule": st.just("cosine")}, {"decay_steps": st.integers(1, 10**9), "final": st.just(0.0)}),
    st.fixed_dictionaries(
        {
            "peak": RATES,
            "schedule": st.just("exponential"),
            "decay_steps": st.integers(1, 10**9),
            "decay_rate": st.floats(0.001, 0.999),
        }
    ),
)
KL_WEIGHTS = some(
    {"schedule": st.sampled_from(["linear", "cosine"]), "steps": st.integers(2, 10**7)}, {"initial": SHARES}
)
TRAINING = some(
    {"learning_rate": LEARNING_RATES},
    {
        "gradient_clip": st.one_of(st.none(), ABOVE),
        "accumulate": st.integers(1, 10000),
        "precision": st.sampled_from(["float32", "bfloat16"]),
        "kl_weight": KL_WEIGHTS,
        "free_nats": st.floats(0, 100),
        "initialise_from": st.one_of(st.none(), st.text(max_size=9).filter(str.isprintable)),
    },
)
LIMITS = some({"steps": st.integers(1, 10**12)}, {"epochs": st.integers(1, 10**6), "seconds": ABOVE})


def settings_of(of):
    """Values of some fields of a class of settings, by their types; its own rules may refuse them."""
    by_type = {int: SIZES, float: st.sampled_from([0.001, 0.5, 1.0]), bool: st.booleans()}
    required = {key: SIZES for key, field in of.model_fields.items() if field.is_required()}
    others = {key: by_type[f.annotation] for key, f in of.model_fields.items() if f.annotation in by_type}
    return some(required, {key: value for key, value in others.items() if key not in required})


@st.composite
def configurations(draw, any_size: bool) -> dict:
    """Plain values that are a valid configuration; with `any_size` but for what a model's own rules exclude."""
    distribution = draw(st.sampled_from(sorted(DISTRIBUTIONS)))
    density = DISTRIBUTIONS[distribution].continuous
    codings = [CONTINUOUS] if density else ["mulaw8"] if distribution == "categorical" else sorted(CODINGS)
    model = draw(st.sampled_from(sorted(MODELS)))
    conf = model_class(model).Config
    value = {
        "model": model,
        "model_conf": draw(settings_of(conf))
        if any_size
        else {k: 16 for k, f in conf.model_fields.items() if f.is_required()},
        "coding": draw(st.sampled_from(codings)),
        "distribution": distribution,
        "distribution_conf": draw(settings_of(DISTRIBUTIONS[distribution].settings)) if any_size else {},
        "data": draw(some({"batch_frames": st.integers(1000, 10**9)}, {"workers": st.integers(0, 64)})),
        "training": draw(TRAINING),
        "validation": draw(some({"every_steps": st.integers(1, 10**9)}, {"patience": st.integers(1, 99)})),
        "limits": draw(LIMITS),
    }
    if model == "zforcing" and draw(st.booleans()):
        value["training"]["auxiliary"] = {"zforcing": {"initial": 1.0, "final": draw(SHARES), "steps": 7}}
    return value


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """load(text) -> configuration, by the way that every program takes."""
    path = tmp_path_factory.mktemp("conf") / "a config.yaml"

    def of(text):
        path.write_text(text, encoding="utf-8")
        return config.load_config(path)

    return of


def test_valid_configurations_come_back_as_they_were(load):
    seen = set()

    @SOME_OF
    @given(configurations(any_size=True))
    def check(value):
        try:
            experiment = load(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
        except ConfigError as error:
            assert re.search(": (model_conf|distribution_conf): ", str(error)), error
            assume(False)
        seen.add(experiment.model)
        again = load(config.dump_yaml(experiment))
        assert again == experiment
        assert json.loads(json.dumps(experiment.frozen(), allow_nan=False)) == experiment.frozen()
        for key, part in value.items():
            assert _agrees(getattr(experiment, key), part), key

    check()
    assert len(seen) >= len(MODELS) // 2


def _agrees(found, given) -> bool:
    if not isinstance(given, dict):
        return found == given
    found = found if isinstance(found, dict) else found.model_dump()
    return all(_agrees(found[key], part) for key, part in given.items())


# --- Damage -----------------------------------------------------------------------------------------------------------


def _paths(value, before=()):
    for key, part in value.items():
        yield (*before, key)
        if isinstance(part, dict):
            yield from _paths(part, (*before, key))


def _wrong(value):
    """What cannot stand in place of a value."""
    if isinstance(value, bool):
        return ["yes please", 1, [value]]
    if isinstance(value, int):
        return ["x", str(value), [value], {"a": value}, True, value + 0.5, -1, math.nan, math.inf, -(10**30)]
    if isinstance(value, float):
        return ["x", "1e-3 s", [value], {"a": value}, True, -1.0, math.nan, math.inf, -math.inf]
    if isinstance(value, list):
        return [3, "x", {"a": value}, [], [-1], ["x"]]
    if isinstance(value, dict):
        return [3, "x", [value], True]
    return [3, [value], {"a": value}, True, 0.5]


def _misspelt(draw, key):
    at = draw(st.integers(0, len(key) - 1))
    return draw(st.sampled_from([key[:at] + key[at + 1 :], key[:at] + "q" + key[at:], key[:at] + "Q" + key[at + 1 :]]))


@st.composite
def damaged(draw, value) -> tuple[str, str]:
    """Text of a configuration with one thing wrong, and the key that must be named."""
    value = json.loads(json.dumps(value))
    path = draw(st.sampled_from(sorted(_paths(value))))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    kind = draw(st.sampled_from(["value", "misspelt", "twice", "tag", "text"]))
    if kind == "value":
        parent[key] = draw(st.sampled_from(_wrong(parent[key])))
    elif kind == "misspelt":
        wrong = _misspelt(draw, key)
        assume(wrong and wrong != key and wrong not in parent)
        parent[wrong] = parent.pop(key)
        key = wrong
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    lines = text.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.lstrip().startswith(f"{key}:"))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    if kind == "twice":
        lines.insert(at, f"{indent}{key}: 1\n")
    elif kind == "tag":
        lines[at] = f"{indent}{key}: !!python/object/apply:os.getcwd []\n"
        key = "tags are not allowed"
    elif kind == "text":
        lines[at] = (
            f"{indent}{key}: {draw(st.sampled_from(['[', '{a', '}', '*b', '&a *a', repr('x')[:2], '@x', '%x']))}\n"
        )
        key = "not valid YAML"
    return "".join(lines), key


def test_damaged_configurations_are_refused_with_the_key_before_anything_is_built(load, monkeypatch):
    def built(*_):
        raise AssertionError("a network is built")

    monkeypatch.setattr(torch.nn.Module, "__init__", built)

    @SOME_OF
    @given(configurations(any_size=False), st.data())
    def check(value, data):
        text, key = data.draw(damaged(value))
        with pytest.raises(ConfigError) as refused:
            load(text)
        message = str(refused.value)
        assert "a config.yaml:" in message and "\n" not in message and key in message, (key, message, text)

    check()
