"""An experiment directory: its contents, and loading a model from it.

config.yaml          resolved configuration, sufficient to rebuild the model
checkpoints/         see checkpoint.py
history.jsonl        one line per validation: step, seconds, bits per frame, ...
train.log  tb/       log and TensorBoard events
done.json            written when a limit has been reached

An exported experiment (see export.py) is read in the same way.
"""

from __future__ import annotations

from pathlib import Path

import torch

from speechlvm.distributions import build_distribution
from speechlvm.experiment.checkpoint import Checkpoints, check_settings, load_weights
from speechlvm.experiment.config import ExperimentConfig, load_config
from speechlvm.experiment.export import is_export, name_of, read_export
from speechlvm.experiment.trained import Experiment, Provenance, Saved
from speechlvm.models import build_model
from speechlvm.models.base import Model
from speechlvm.observation import Observation
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import read_json
from speechlvm.utils.settings import checked


def build(config: ExperimentConfig, observation: Observation, seed: int) -> Model:
    """A model for an observation, with random weights drawn with `seed`.

    Raises:
        ConfigError: the distribution does not fit the observation.
    """
    distribution = build_distribution(config.distribution, config.distribution_conf, observation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(config.model, config.model_conf, observation.channels, distribution)


def config_of(directory: Path) -> ExperimentConfig:
    """The configuration of an experiment, or of an export.

    Raises:
        UserError: it is missing.
    """
    path = Path(directory) / "config.yaml"
    if not path.exists():
        raise UserError(f"{path}: missing; {directory} is not a trained experiment; run stage 3 (train) first")
    return load_config(path)


SAME_INPUTS = ({"mulaw", "mulaw-pcm"},)
"""Codings with the same network inputs: a network trained with one can be scored over the cells of the other."""


def load_experiment(directory: Path, device: torch.device | str = "cpu", coding: str | None = None) -> Experiment:
    """Load the best weights of an experiment, or those of an export, to score and sample.

    Args:
        directory: directory of the experiment or export.
        device: device of the model.
        coding: score over the cells of this coding instead of the training coding (mulaw and mulaw-pcm have the same
            network inputs up to rounding; with mulaw-pcm the likelihood is of the PCM signal).

    Raises:
        UserError: not trained yet, damaged, or of another model.
        ConfigError: the inputs of the codings differ.
    """
    saved = load_saved(directory)
    config = saved.config
    if saved.observation.coding != config.coding:
        raise UserError(f"{saved.source}: its coding is {saved.observation.coding}, config.yaml says {config.coding}")
    if coding is not None and coding != config.coding:
        if not any({coding, config.coding} <= group for group in SAME_INPUTS):
            raise ConfigError(f"--coding {coding}: {directory} was trained with {config.coding}, whose inputs differ")
        config = config.model_copy(update={"coding": coding})
    observation = Observation.from_dict({**saved.observation.to_dict(), "coding": config.coding}, device)
    model = build(config, observation, saved.provenance.seed)
    load_weights(model, saved.weights, saved.source)
    model.to(device).eval().requires_grad_(False)
    return Experiment(config, model, observation, saved.provenance, saved.name, saved.train_set)


def load_saved(directory: Path) -> Saved:
    """Read the best weights of an experiment, or those of an export, without building the model.

    Raises:
        UserError: not trained yet, damaged, or with other settings.
    """
    directory = Path(directory)
    if is_export(directory):
        return read_export(directory)
    config = config_of(directory)
    checkpoints = Checkpoints(directory / "checkpoints")
    content = checkpoints.load_best()
    source = str(checkpoints.path(checkpoints.best_step()))
    check_settings(content, config, source)
    origin = read_json(directory / "origin.json")
    if not isinstance(origin, dict) or not isinstance(origin.get("train_set"), str):
        raise UserError(f"{directory / 'origin.json'}: does not name the training set; run stage 3 (train) again")
    return Saved(
        name_of(directory),
        origin["train_set"],
        config,
        content["model"],
        Observation.from_dict(content["observation"], source=source),
        checked(Provenance, content["provenance"], source),
        source,
    )


def training_device(ngpu: int, process: int | None = None) -> torch.device:
    """CPU for `--ngpu 0`, the first visible GPU for 1, where float32 is made to mean float32 in LSTMs, too.

    Args:
        ngpu: value of `--ngpu`.
        process: local rank in distributed training, where each process has its own GPU.

    Raises:
        ConfigError: more than one GPU for a single process.
        UserError: not enough GPUs are visible.
    """
    if ngpu > 1 and process is None:
        raise ConfigError(f"--ngpu {ngpu}: a program uses one GPU at most; use --ngpu 1")
    if ngpu == 0:
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = process or 0
    if found < max(ngpu, number + 1):
        raise UserError(f"--ngpu {max(ngpu, number + 1)}: {found} GPUs are visible; use --ngpu 0 or another machine")
    torch.backends.cudnn.allow_tf32 = False  # by default cuDNN multiplies with ten bits
    return torch.device("cuda", number)
