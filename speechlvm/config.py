"""Experiment configuration: one YAML file, read safely, checked whole before anything is allocated."""

from __future__ import annotations

import difflib
import re
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, model_validator

from speechlvm.errors import ConfigError
from speechlvm.settings import Settings
from speechlvm.text import read_text

MAX_CONFIG_BYTES = 1 << 20
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*|[0-9]*\.[0-9]*)([eE][-+]?[0-9]{1,3})?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
# What YAML 1.1 takes for text, and all else for a number. 1e5 is whole, as settings that count must be.
_EXPONENTS = {
    _INT: re.compile(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}$"),
    _FLOAT: re.compile(r"[-+]?([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)[eE][-+]?[0-9]+$"),
}


class DataSettings(Settings):
    """How training batches are cut."""

    batch_frames: int = Field(gt=0, le=10**9, description="frames per batch, padding included")
    segment_frames: int | None = Field(
        default=None, gt=0, le=10**9, description="random segments; null: whole utterances"
    )
    max_frames: int | None = Field(
        default=None, gt=0, le=10**9, description="of a row; longer utterances are cut; null: batch_frames"
    )
    workers: int = Field(default=0, ge=0, le=64, description="processes that read ahead")

    @model_validator(mode="after")
    def _segment_fits(self) -> DataSettings:
        if self.segment_frames is not None and self.segment_frames > self.batch_frames:
            raise ValueError(f"segment_frames {self.segment_frames} exceeds batch_frames {self.batch_frames}")
        if None not in (self.segment_frames, self.max_frames) and self.segment_frames > self.max_frames:
            raise ValueError(f"segment_frames {self.segment_frames} exceeds max_frames {self.max_frames}")
        return self

    @property
    def row_frames(self) -> int:
        """Most frames of one row of a batch."""
        return self.segment_frames or min(self.batch_frames, self.max_frames or self.batch_frames)


class LearningRate(Settings):
    """Learning rate over a run: linear warm-up, then constant, cosine to `final`, or exponential decay.

    `cosine` spans `decay_steps` if given, else the run's own limit (steps, epochs or seconds, whichever is furthest).
    """

    peak: float = Field(gt=0, le=10)
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final: float = Field(default=0.0, ge=0, le=10)
    decay_steps: int | None = Field(default=None, gt=0)
    decay_rate: float = Field(default=1.0, gt=0, le=1, description="factor per decay_steps (exponential)")

    @model_validator(mode="after")
    def _schedule_has_what_it_needs(self) -> LearningRate:
        if self.schedule == "exponential" and (self.decay_steps is None or self.decay_rate == 1):
            raise ValueError(
                "schedule exponential needs decay_steps, the steps after which decay_rate (below 1) applies once"
            )
        if self.schedule != "exponential" and self.decay_rate != 1:
            raise ValueError(f"decay_rate {self.decay_rate} means nothing with schedule {self.schedule}; expected 1")
        if self.schedule == "constant" and self.decay_steps is not None:
            raise ValueError("decay_steps means nothing with schedule constant; expected null")
        if self.final > self.peak:
            raise ValueError(f"final {self.final} exceeds peak {self.peak}; a learning rate falls")
        return self


class KLWeight(Settings):
    """Weight of the KL terms in the objective; never in a reported bound. `cosine` is source B's 1 - cos(alpha)."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    initial: float = Field(default=0.0, ge=0, le=1, description="weight at step 0 (linear, cosine)")
    steps: int = Field(default=1, gt=0, description="steps until the weight is 1 (linear, cosine)")

    @model_validator(mode="after")
    def _schedule_has_its_steps(self) -> KLWeight:
        if self.schedule == "constant" and (self.initial != 0 or self.steps != 1):
            raise ValueError("initial and steps mean nothing with schedule constant; give schedule linear or cosine")
        if self.schedule != "constant" and self.steps == 1:
            raise ValueError(f"schedule {self.schedule} needs steps, the steps until the weight is 1 (at least 2)")
        return self


class AuxiliaryWeight(Settings):
    """Weight of a cost that only training has, never a bound: from `initial` to `final`, linear over `steps`."""

    initial: float = Field(ge=0, le=1000, description="weight at step 0")
    final: float = Field(ge=0, le=1000)
    steps: int = Field(gt=0, description="steps until the weight is final")


class TrainingSettings(Settings):
    """The optimiser and the objective."""

    learning_rate: LearningRate
    gradient_clip: float | None = Field(default=None, gt=0, description="norm of the gradient of nats per frame")
    accumulate: int = Field(default=1, gt=0, le=10000, description="batches per optimiser step")
    precision: Literal["float32", "bfloat16"] = "float32"
    kl_weight: KLWeight = KLWeight()
    free_nats: float = Field(
        default=0.0, ge=0, description="per latent step and level: KL below this costs nothing more"
    )
    auxiliary: dict[str, AuxiliaryWeight] = Field(default={}, description="by cost; those not named are left out")
    initialise_from: str | None = Field(default=None, description="directory of a finished run to take weights from")


class ValidationSettings(Settings):
    """Scoring of the validation set during training."""

    every_steps: int = Field(gt=0)
    utterances: int | None = Field(default=None, gt=0, description="score a fixed subset of this size; null: all")
    patience: int | None = Field(default=None, gt=0, description="stop after this many validations without a new best")


class Limits(Settings):
    """When a run ends: whichever comes first. Raising one continues a finished run."""

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0, description="time in training steps, validation excluded")

    @model_validator(mode="after")
    def _some_limit(self) -> Limits:
        if self.steps is None and self.epochs is None and self.seconds is None:
            raise ValueError("give at least one of steps, epochs, seconds")
        return self


class ExperimentConfig(Settings):
    """Everything that defines an experiment; the resolved copy beside the checkpoints is all that later stages read."""

    model: str
    model_conf: dict[str, Any] = {}
    coding: str
    distribution: str
    distribution_conf: dict[str, Any] = {}
    data: DataSettings
    training: TrainingSettings
    validation: ValidationSettings
    limits: Limits

    def frozen(self) -> dict[str, Any]:
        """The settings that may not change under an existing experiment: all but limits and loader workers."""
        value = self.model_dump()
        del value["limits"], value["data"]["workers"]
        # what is empty or null, and its absence, are the same experiment
        if not value["training"]["auxiliary"]:
            del value["training"]["auxiliary"]
        if value["data"]["max_frames"] is None:
            del value["data"]["max_frames"]
        return value


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, tags, aliases (alias bombs), and numbers that are not decimal."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases are not allowed")
        if event.tag is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: tags are not allowed, found {event.tag!a}")
        return super().compose_node(parent, index)

    def construct_scalar(self, node):
        # YAML 1.1 reads 010 as 8 and 1:30 as 90
        if node.tag in (_INT, _FLOAT) and not _DECIMAL.fullmatch(node.value):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {node.value[:99]!r} is no decimal number")
        text = super().construct_scalar(node)
        return format(Decimal(text), "f") if node.tag == _INT else text

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key!r} is not text")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_StrictLoader` would take for numbers."""


for _each in (_StrictLoader, _Dumper):
    for _tag, _pattern in _EXPONENTS.items():
        _each.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


def parse_yaml(text: str, source: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        ConfigError: malformed, duplicate keys, tags, aliases.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: missing, too large, malformed, or not a mapping.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block, a device never end
            raise ConfigError(f"{path}: cannot be read (not a regular file); give an existing YAML file")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give an existing YAML file") from error
    value = parse_yaml(read_text(path), str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(value).__name__}")
    return value


def validated(settings: type[Settings], value: dict[str, Any], source: str) -> Any:
    """Build settings from plain values; the first thing wrong becomes one line.

    Raises:
        ConfigError: unknown key, wrong type, out of range.
    """
    try:
        return settings(**value)
    except ValidationError as error:
        # a misspelt key, which says why another is missing, first
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        raise ConfigError("; ".join(_explain(settings, item, source) for item in items[:3])) from error
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from error


def _explain(settings: type[Settings], item: dict[str, Any], source: str) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        known = list(_fields_at(settings, item["loc"][:-1]))
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
        return f"{source}: {key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{source}: {key}: missing; it has no default"
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return f"{source}: {key}: {message}"
    return (
        f"{source}: {key}: {message}; found {_shown(item['input'])} ({type(item['input']).__name__}){_as_number(item)}"
    )


def _as_number(item: dict[str, Any]) -> str:
    """What to write in place of text that was meant as a number."""
    if not item["type"].startswith(("int_", "float_")) or not isinstance(item["input"], str):
        return ""
    try:
        number = float(item["input"])
    except ValueError:
        return ""
    written = f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:f}".rstrip("0")
    return f"; write {written if float(written) == number else repr(number)}, without quotation marks"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # of a number with thousands of digits
        return "more digits than can be shown"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _fields_at(settings: Any, location: tuple) -> dict[str, Any]:
    for part in location:
        if get_origin(settings) is dict:
            settings = get_args(settings)[1]
            continue
        field = getattr(settings, "model_fields", {}).get(part)
        if field is None:
            return {}
        settings = field.annotation
    return getattr(settings, "model_fields", {})


def apply_overrides(value: dict[str, Any], overrides: list[tuple[str, str]]) -> dict[str, Any]:
    """Settings with dotted overrides such as ("limits.seconds", "60"), whose values are read as YAML."""
    value = {key: dict(item) if isinstance(item, dict) else item for key, item in value.items()}
    for dotted, text in overrides:
        *parents, last = dotted.replace("-", "_").split(".")
        node = value
        for parent in parents:
            child = node.get(parent) or {}
            if not isinstance(child, dict):
                raise ConfigError(f"--{dotted}: '{parent}' is not a section")
            node[parent] = dict(child)
            node = node[parent]
        node[last] = parse_yaml(text, f"--{dotted}")
    return value


def load_experiment(path: Path, overrides: list[tuple[str, str]] = ()) -> ExperimentConfig:
    """A checked experiment configuration; model and distribution settings are checked by their own classes.

    Raises:
        ConfigError: anything that is wrong, in one line with the file and the key.
    """
    config = validated(ExperimentConfig, apply_overrides(load_yaml(path), list(overrides)), str(path))
    return resolved(config, str(path))


def resolved(config: ExperimentConfig, source: str) -> ExperimentConfig:
    """The configuration with the defaults of its model and distribution written out, so that it stays what it is.

    Raises:
        ConfigError: settings that their classes refuse, a distribution that does not fit the coding, or the weight of
            an auxiliary cost that the model does not have (those it has: `auxiliary_costs` of its settings, if any).
    """
    from speechlvm.coding import build_coding
    from speechlvm.distributions import check_distribution
    from speechlvm.models import model_class
    from speechlvm.observation import CONTINUOUS

    try:
        settings = model_class(config.model).Config
        codes = None if config.coding == CONTINUOUS else build_coding(config.coding).size
        distribution_conf = check_distribution(config.distribution, config.distribution_conf, codes)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    model_conf = validated(settings, config.model_conf, f"{source}: model_conf")
    costs = getattr(model_conf, "auxiliary_costs", ())
    for name in config.training.auxiliary:
        if name not in costs:
            allowed = f"expected one of {', '.join(costs)}" if costs else "it has none"
            raise ConfigError(f"{source}: training.auxiliary: '{name}' is no cost of this {config.model}; {allowed}")
    return config.model_copy(
        update={"model_conf": model_conf.model_dump(), "distribution_conf": distribution_conf.model_dump()}
    )


def dump_yaml(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False)
