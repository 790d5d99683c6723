"""The model card of an export: Markdown after the metadata in YAML that the Hugging Face hub reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechlvm import __version__
from speechlvm.models import model_class
from speechlvm.models.outside import ALLOWED
from speechlvm.reporting.collect import Score, scores_of
from speechlvm.reporting.document import scores_grid
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import hash_value, read_json
from speechlvm.utils.settings import format_yaml

if TYPE_CHECKING:
    from speechlvm.experiment.trained import Experiment

CARD = """\
---
{metadata}---

# {name}

`{system}` ({reference}), by speechlvm {version}, trained on {data}.

{facts}

## Results

{results}

Likelihoods compare with those of other models over the same data, coding and unit only; of a bound, the model may be
better. The weights are those that were best on a validation set.

## Use

```python
from speechlvm import load_experiment
from speechlvm.sampling.generate import prior_groups
{imports}
sample = prior_groups(load_experiment({folder}), count=1, frames={frames}, seed=0)[0].made[0]
{write}
```

`python -m speechlvm.bin.score` and the other programs of speechlvm take this folder as `--exp`. Samples are
unconditional: no text, speaker or style can be asked for, and speech need not be intelligible.{outside}
"""
OUTSIDE = """

Its class is not part of speechlvm: get the code, and `export {allowed}=/path/to/{package}` before any of this.\
"""
AUDIO = ("from speechlvm.data.audio import write_wav", 'write_wav("sample.wav", sample.data, {rate_hz})')
VECTORS = ("import numpy as np", 'np.save("sample.npy", sample.data)  # (frames, channels), in the units of the data')
SAMPLE_SECONDS, SAMPLE_FRAMES = 2, 500  # that the example draws; frames where they are not spaced in time


def scores_of_model(directory: Path, model: str) -> list[Score]:
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
    errors: list[str] = []
    scores = scores_of(directory, errors)
    if errors:
        raise UserError(errors[0])
    return scores


def model_card(experiment: Experiment, scores: list[Score], folder: str, licence: str, data_set: str) -> str:
    """The card.

    Args:
        experiment: that is exported.
        scores: its own.
        folder: name of the export.
        licence: of the weights, as the hub names it.
        data_set: name of the corpus; "" if nobody said.
    """
    config, provenance, observation = experiment.config, experiment.provenance, experiment.observation
    audible, rate_hz = observation.contents == "audio", observation.rate_hz
    metadata = {
        "library_name": "speechlvm",
        "license": licence,
        "tags": [config.model, *(["audio"] if audible else [])],
        "model-index": [{"name": experiment.name, "results": [_entry(score, data_set) for score in scores]}],
    }
    facts = {
        "parameters": sum(parameter.numel() for parameter in experiment.model.parameters()),
        "coding, distribution": f"{config.coding}, {config.distribution}",
        "frames per second": rate_hz or "not spaced in time",
        "training": f"{provenance.step} steps, {provenance.epoch} epochs, {provenance.seconds / 3600:.4g} hours",
        "seed": provenance.seed,
        "hashes": f"configuration {hash_value(config.frozen())}, data {provenance.data_hash}",
    }
    imports, write = AUDIO if audible else VECTORS
    package = config.model.partition(":")[0].partition(".")[0]
    return CARD.format(
        metadata=format_yaml(metadata),
        name=experiment.name,
        system=config.model,
        version=__version__,
        reference=model_class(config.model).reference,
        data=" ".join(filter(None, (data_set, f"`{experiment.train_set}`"))),
        facts="\n".join(f"- {key}: {value}" for key, value in facts.items()),
        results=scores_grid(scores).markdown() if scores else "None: it had not been scored.",
        folder=json.dumps(folder),
        frames=round(SAMPLE_SECONDS * rate_hz) if rate_hz else SAMPLE_FRAMES,
        imports=imports,
        write=write.format(rate_hz=rate_hz),
        outside=OUTSIDE.format(allowed=ALLOWED, package=package) if ":" in config.model else "",
    )


def _entry(score: Score, data_set: str) -> dict[str, Any]:
    """A score as the hub's index of models has it."""
    unit = "nats_per_utterance" if score.first.unit == "density" else "bits_per_frame"
    bound = {"<=": f", upper bound ({score.bound})", ">=": f", lower bound ({score.bound})"}.get(score.sign, "")
    name = f"{unit.replace('_', ' ')}, coding {score.coding}{bound}"
    return {
        "task": {"type": "density-estimation"},
        "dataset": {"name": " ".join(filter(None, (data_set, score.set))), "type": score.set},
        "metrics": [{"type": unit, "name": name, "value": score.mean(unit)}],
    }
