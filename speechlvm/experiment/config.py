"""Experiment configuration: one YAML file, read safely and validated before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from speechlvm.data.dumps.dataset import DataSettings
from speechlvm.utils.errors import ConfigError
from speechlvm.utils.settings import Settings, format_yaml, load_yaml, parse_yaml, validated


class LearningRate(Settings):
    """Learning rate over a run: linear warm-up, then constant, cosine to `final`, or exponential decay.

    `cosine` spans `decay_steps` if given, else the limit of the run (steps, epochs or seconds, whichever is furthest):
    with a larger limit, the rate of a finished run rises again. `constant-decay` is constant, then linear to `final`
    over the last `decay_share` of the limit: a larger limit continues from the step at which the decay began, as if it
    had been given from the start.
    """

    peak: float = Field(gt=0, le=10)
    schedule: Literal["constant", "constant-decay", "cosine", "exponential"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    final: float = Field(default=0.0, ge=0, le=10)
    decay_steps: int | None = Field(default=None, gt=0)
    decay_rate: float = Field(default=1.0, gt=0, le=1, description="factor per decay_steps (exponential)")
    decay_share: float = Field(default=0.2, gt=0, lt=1, description="of the run's limit (constant-decay)")

    @model_validator(mode="after")
    def _schedule_has_what_it_needs(self) -> LearningRate:
        if self.schedule == "exponential" and (self.decay_steps is None or self.decay_rate == 1):
            raise ValueError(
                "schedule exponential needs decay_steps, the steps after which decay_rate (below 1) applies once"
            )
        if self.schedule != "exponential" and self.decay_rate != 1:
            raise ValueError(f"decay_rate {self.decay_rate} has no effect with schedule {self.schedule}; expected 1")
        if self.schedule in ("constant", "constant-decay") and self.decay_steps is not None:
            raise ValueError(f"decay_steps has no effect with schedule {self.schedule}; expected null")
        if self.final > self.peak:
            raise ValueError(f"final {self.final} exceeds peak {self.peak}; expected at most the peak")
        return self


class KLWeight(Settings):
    """Weight of the KL terms in the objective; never in a reported bound.

    `cosine` is 1 - cos(alpha), alpha from 0 to pi / 2 (source B); `raised-cosine` is (1 - cos(alpha)) / 2, alpha from 0
    to pi (source A's code).
    """

    schedule: Literal["constant", "linear", "cosine", "raised-cosine"] = "constant"
    initial: float = Field(default=0.0, ge=0, le=1, description="weight at step 0 (all but constant)")
    steps: int = Field(default=1, gt=0, description="steps until the weight is 1 (all but constant)")

    @model_validator(mode="after")
    def _schedule_has_its_steps(self) -> KLWeight:
        if self.schedule == "constant" and (self.initial != 0 or self.steps != 1):
            raise ValueError("initial and steps have no effect with schedule constant; give another schedule")
        if self.schedule != "constant" and self.steps == 1:
            raise ValueError(f"schedule {self.schedule} needs steps, the steps until the weight is 1 (at least 2)")
        return self


class AuxiliaryWeight(Settings):
    """Weight of an auxiliary loss, never part of a bound: linear from `initial` to `final` over `steps`."""

    initial: float = Field(ge=0, le=1000, description="weight at step 0")
    final: float = Field(ge=0, le=1000)
    steps: int = Field(gt=0, description="steps until the weight is final")


class TrainingSettings(Settings):
    """The optimiser and the objective."""

    learning_rate: LearningRate
    gradient_clip: float | None = Field(default=None, gt=0, description="norm of the gradient of nats per frame")
    accumulate: int = Field(default=1, gt=0, le=10000, description="batches per optimiser step")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of most products; bfloat16 is float16 on GPUs that have only this"
    )
    kl_weight: KLWeight = KLWeight()
    free_nats: float = Field(default=0.0, ge=0, description="per latent step and level: KL below this is not penalised")
    free_nats_unit: Literal["step", "dimension"] = Field(
        default="step",
        description="per step of a level; or (source A's code) shared equally by its dimensions, in proportion to the "
        "hop of the level",
    )
    free_nats_steps: int | None = Field(
        default=None,
        gt=1,
        description="constant for half of these steps, then to 0 along a cosine (source A's code); null: constant",
    )
    auxiliary: dict[str, AuxiliaryWeight] = Field(default={}, description="by loss; others are not used")
    particles: int | None = Field(default=None, ge=2, le=1000, description="K of FIVO as the objective; null: the ELBO")
    initialise_from: str | None = Field(default=None, description="directory of a finished run to take weights from")

    @model_validator(mode="after")
    def _check_fivo(self) -> TrainingSettings:
        if self.particles and (self.kl_weight != KLWeight() or self.free_nats or self.auxiliary):
            raise ValueError(
                "particles trains with FIVO, which has no KL terms; leave out kl_weight, free_nats, auxiliary"
            )
        return self

    @model_validator(mode="after")
    def _check_free_nats(self) -> TrainingSettings:
        if self.free_nats == 0 and (self.free_nats_steps is not None or self.free_nats_unit != "step"):
            raise ValueError("free_nats_steps and free_nats_unit have no effect without free_nats; set it above 0")
        return self


class ValidationSettings(Settings):
    """Scoring of the validation set during training."""

    every_steps: int = Field(gt=0)
    utterances: int | None = Field(default=None, gt=0, description="score a fixed subset of this size; null: all")
    patience: int | None = Field(
        default=20,
        gt=0,
        description="stop after this many validations without a new best, once schedules of the objective have ended; "
        "null: never",
    )


class Limits(Settings):
    """Limits of a run, which ends at the first one reached. Raising it continues a finished run."""

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0, description="time in training steps, validation excluded")

    @model_validator(mode="after")
    def _some_limit(self) -> Limits:
        if self.steps is None and self.epochs is None and self.seconds is None:
            raise ValueError("give at least one of steps, epochs, seconds")
        return self


class ExperimentConfig(Settings):
    """Everything that defines an experiment; later stages read only the resolved copy beside the checkpoints."""

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
        """The settings that an existing experiment may not change: all but limits, patience and workers."""
        value = self.model_dump()
        del value["limits"], value["validation"]["patience"], value["data"]["workers"]
        return value


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


def _with_base(path: Path) -> tuple[dict[str, Any], str]:
    """The settings in a file, merged over those of its base if it has one; and their name in messages."""
    value = load_yaml(path)
    if "base" not in value:
        return value, str(path)
    name = value.pop("base")
    source = f"{path} (base: {name!a})"
    if not isinstance(name, str):
        raise ConfigError(f"{source}: expected the path of a YAML file, relative to this one")
    try:
        base = load_yaml(Path(path).parent / name)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    if "base" in base:
        raise ConfigError(f"{source}: the base has a base itself; name that one, or copy from it")
    for kind in ("model", "distribution"):
        if value.get(kind, base.get(kind)) != base.get(kind):
            base.pop(f"{kind}_conf", None)
    return _merged(base, value), source


def _merged(base: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """`value` over `base`: mappings are merged key by key, other values replaced."""
    merged = dict(base)
    for key, item in value.items():
        both = isinstance(item, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], item) if both else item
    return merged


def load_config(path: Path, overrides: list[tuple[str, str]] = ()) -> ExperimentConfig:
    """A checked experiment configuration; model and distribution settings are checked by their own classes.

    A file may inherit from another with a line ``base: other.yaml``, a path relative to the file. Mappings are merged
    key by key, lists and other values replaced. If the `model` of the file differs from that of its base, the base's
    `model_conf` is ignored, as settings of one model do not apply to another; likewise for `distribution` and
    `distribution_conf`. A base may be incomplete, and cannot have a base.

    Args:
        path: the YAML file.
        overrides: dotted settings and their values in YAML, applied last (`apply_overrides`).

    Raises:
        ConfigError: any error, in one line with the file and the key.
    """
    value, source = _with_base(path)
    return resolved(validated(ExperimentConfig, apply_overrides(value, list(overrides)), source), source)


def resolved(config: ExperimentConfig, source: str) -> ExperimentConfig:
    """The configuration with the defaults of its model and distribution filled in.

    Raises:
        ConfigError: invalid settings, a distribution that does not fit the coding, or the weight of an auxiliary loss
            that the model does not have (`auxiliary_losses` of its settings lists them, if there are any).
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
    if config.training.particles and model_class(config.model).bound == "exact":
        raise ConfigError(f"{source}: training.particles: {config.model} has no latents; leave it out")
    model_conf = validated(settings, config.model_conf, f"{source}: model_conf")
    if getattr(model_conf, "experts", None) and (config.coding, config.distribution) != ("linear", "dmol"):
        raise ConfigError(
            f"{source}: model_conf.experts: predict PCM values; expected coding linear and distribution dmol"
        )
    losses = getattr(model_conf, "auxiliary_losses", ())
    for name in config.training.auxiliary:
        if name not in losses:
            allowed = f"expected one of {', '.join(losses)}" if losses else "it has none"
            raise ConfigError(f"{source}: training.auxiliary: unknown loss '{name}' for {config.model}; {allowed}")
    return config.model_copy(
        update={"model_conf": model_conf.model_dump(), "distribution_conf": distribution_conf.model_dump()}
    )


def dump_yaml(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML."""
    return format_yaml(config.model_dump())
