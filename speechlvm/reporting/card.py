"""The model card of an export: what is known of a model, as a page and as YAML that catalogues of models read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from speechlvm import __version__
from speechlvm.reporting.collect import Cell, scores_of
from speechlvm.reporting.formats import markdown_table
from speechlvm.reporting.page import SCORES, score_row
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_value, read_json

if TYPE_CHECKING:
    from speechlvm.experiment.trained import Experiment

SOURCE_A = "Towards Generative Latent Variable Models for Speech, 2022"
PAPERS = {
    "lstm": f"{SOURCE_A}, a baseline",
    "wavenet": "van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016, arXiv:1609.03499",
    "vrnn": "Chung et al., A Recurrent Latent Variable Model for Sequential Data, 2015, arXiv:1506.02216",
    "srnn": "Fraccaro et al., Sequential Neural Models with Stochastic Layers, 2016, arXiv:1605.07571",
    "zforcing": "Goyal et al., Z-Forcing: Training Stochastic Recurrent Networks, 2017, arXiv:1711.05411",
    "stochastic_wavenet": "Lai et al., Stochastic WaveNet, 2018, arXiv:1806.06116",
    "stcn": "Aksan and Hilliges, STCN: Stochastic Temporal Convolutional Networks, 2019, arXiv:1902.06568",
    "cwvae": f"Saxena et al., Clockwork Variational Autoencoders, 2021, arXiv:2102.09532; for speech: {SOURCE_A}",
}
"""What systems are from; their files in speechlvm/models say where they differ."""

USE = {
    "pcm": """\
from speechlvm.data.audio import write_wav
from speechlvm.experiment.load import load_experiment
from speechlvm.sampling.generate import prior_groups
sample = prior_groups(load_experiment({folder}), count=1, frames={frames}, seed=0)[0].made[0]
write_wav("sample.wav", sample.data, {rate_hz})""",
    "vectors": """\
import numpy as np
from speechlvm.experiment.load import load_experiment
from speechlvm.sampling.generate import prior_groups
sample = prior_groups(load_experiment({folder}), count=1, frames={frames}, seed=0)[0].made[0]
np.save("sample.npy", sample.data)  # (frames, channels), in the units of the data""",
}
SAMPLE_SECONDS, SAMPLE_FRAMES = 2, 500  # that the example draws; frames where they are not spaced in time

LIMITS = """\
- It has seen the training set above and nothing else.
- Likelihoods compare with those of other models over the same data, coding and unit only. One that is marked as a bound
  is just that: the model may be better.
- The weights are those that were best on a validation set. Test sets had no part in training.
- Samples are unconditional: no text, speaker or style can be asked for, and speech need not be intelligible.
- The licence of the training data may restrict what the weights may be used for."""


def scores_of_model(directory: Path, model: str) -> list[Cell]:
    """The scores of an experiment.

    Args:
        directory: of the experiment.
        model: SHA-256 of the file that names its best weights.

    Raises:
        UserError: a score is damaged, or is of other weights than these.
    """
    for path in sorted(directory.glob("score_*/done.json")):
        done = read_json(path)
        if not isinstance(done, dict) or done.get("model") != model:
            raise UserError(f"{path.parent}: is a score of other weights; run stage 4 (score) again, or remove it")
    cells, faults = scores_of(directory)
    if faults:
        raise UserError(faults[0])
    return cells


def model_card(experiment: Experiment, cells: list[Cell], folder: str, licence: str, data_set: str) -> str:
    """Markdown with YAML before it.

    Args:
        experiment: that is exported.
        cells: its scores.
        folder: name of the export.
        licence: of the weights.
        data_set: name of the corpus; "" if nobody said.
    """
    facts = _facts(experiment, data_set)
    audible = experiment.observation.contents == "audio"
    head = {
        "library_name": "speechlvm",
        "license": licence,
        "tags": [experiment.config.model, *(["audio"] if audible else [])],
        "model-index": [{"name": experiment.name, "results": [_entry(cell, data_set) for cell in cells]}],
        "speechlvm": facts,
    }
    rate_hz = experiment.observation.rate_hz
    example = USE["pcm" if audible else "vectors"].format(
        folder=json.dumps(folder), frames=round(SAMPLE_SECONDS * rate_hz) if rate_hz else SAMPLE_FRAMES, rate_hz=rate_hz
    )
    terms = "Nobody has said" if licence == "unknown" else f"{_plain(licence)}, chosen by whoever exported the weights"
    sections = [
        f"# {_plain(experiment.name)}",
        f"The system `{experiment.config.model}` of speechlvm. Paper: {PAPERS[experiment.config.model]}.",
        markdown_table(["", ""], [[key.replace("_", " "), _plain(value)] for key, value in facts.items()]),
        "## Results",
        markdown_table([column.name for column in SCORES], [score_row(cell) for cell in cells])
        if cells
        else "None: it had not been scored.",
        "## Limits",
        LIMITS,
        "## Use",
        f"Where this folder lies, with speechlvm {__version__}. The programs that score and sample take it as `--exp`.",
        f"```python\n{example}\n```",
        "## Licence of the weights",
        f"{terms}.",
    ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


def _facts(experiment: Experiment, data_set: str) -> dict[str, Any]:
    """What is known; what is not, is left out."""
    config, provenance = experiment.config, experiment.provenance
    facts = {
        "system": config.model,
        "data_set": data_set,
        "training_set": experiment.train_set,
        "data_hash": provenance.data_hash,
        "coding": config.coding,
        "distribution": config.distribution,
        "frames_per_second": experiment.observation.rate_hz,
        "parameters": sum(parameter.numel() for parameter in experiment.model.parameters()),
        "steps": provenance.step,
        "epochs": provenance.epoch,
        "hours_of_training_steps": round(provenance.seconds / 3600, 4),
        "seed": provenance.seed,
        "config_hash": hash_value(config.frozen()),
        "speechlvm": __version__,
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _entry(cell: Cell, data_set: str) -> dict[str, Any]:
    result = cell.first
    unit = "nats_per_utterance" if result.unit == "density" else "bits_per_frame"
    words = unit.replace("_", " ")
    bound = {"<=": f", upper bound ({cell.bound})", ">=": f", lower bound ({cell.bound})"}.get(cell.sign, "")
    return {
        "task": {"type": "density-estimation"},
        "dataset": {"name": " ".join(filter(None, (data_set, cell.set))), "type": cell.set},
        "metrics": [{"type": unit, "name": f"{words}, coding {cell.coding}{bound}", "value": cell.mean(unit)}],
    }


def _plain(value: Any) -> str:
    """Text in which Markdown and HTML see nothing, on one line."""
    return "".join(f"\\{c}" if c in "\\`*[]<>#!&" else c for c in " ".join(str(value).split()))
