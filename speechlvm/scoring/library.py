"""Scoring from Python: arrays or audio files, with any trained or exported model.

from speechlvm import load_experiment, score

experiment = load_experiment("exp/train/lstm_s64/seed1")
for result in score(experiment, ["one.wav", "two.flac"]):
    print(result.utterance, result.frames, result.bits_per_frame)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from speechlvm.data.audio import audio_info, read_audio
from speechlvm.data.dumps.dump import DumpRecord
from speechlvm.models.base import Model
from speechlvm.observation import AudioObservation, Observation
from speechlvm.scoring.accounting import UtteranceScore
from speechlvm.scoring.score import score_dump
from speechlvm.utils.errors import UserError


class Trained(Protocol):
    """The result of `load_experiment`."""

    model: Model
    observation: Observation


def score(
    experiment: Trained, sequences: Sequence[np.ndarray | Path | str], *, seed: int = 0, samples: int = 1
) -> list[UtteranceScore]:
    """Log-likelihoods, or bounds on them, of whole sequences, in the given order; the same as in stage 4.

    Args:
        experiment: result of `load_experiment`.
        sequences: for audio, 16-bit mono files (WAV, FLAC, SPHERE) or arrays (T,) int16; for vectors, arrays (T, C)
            float32 in the units of the training data. Files are identified by their names, arrays by 0, 1, ...
        seed: seed of the noise of latents, which also depends on the name.
        samples: K > 1 gives the importance-weighted bound for models with latents.

    Raises:
        UserError: a sequence is not such a file or array, is empty, or has another rate than the training data; two
            have the same name; a log-likelihood is not finite.
    """
    if isinstance(sequences, np.ndarray | Path | str):
        raise UserError("a single sequence; expected a list of arrays or files, which may have one element")
    arrays: dict[str, np.ndarray] = {}
    for number, each in enumerate(sequences):
        array = isinstance(each, np.ndarray)
        if not array and not isinstance(each, Path | str):
            raise UserError(f"{number}: a {type(each).__name__}; expected a numpy array or the path of a file")
        name = str(number) if array else Path(each).stem
        if name in arrays:
            raise UserError(f"{each}: a second sequence named {name}; score them separately")
        arrays[name] = _checked(experiment.observation, each if array else _read(experiment.observation, each), name)
    scores = score_dump(
        experiment.model,
        experiment.observation,
        _Arrays(arrays),
        seed=seed,
        samples=1 if experiment.model.bound == "exact" else samples,
    )
    found = {score.utterance: score for score in scores}
    return [found[name] for name in arrays]


class _Arrays:
    """Arrays with the methods of a dump that scoring needs."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.records = {name: DumpRecord(name, Path(), 0, len(array)) for name, array in arrays.items()}

    def read(self, utterance: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.arrays[utterance][start:stop]


def _read(observation: Observation, path: Path | str) -> np.ndarray:
    if not isinstance(observation, AudioObservation):
        raise UserError(f"{path}: the model is trained on {observation.contents}; expected arrays")
    return read_audio(path, observation.rate_hz or audio_info(path).rate_hz)


def _checked(observation: Observation, array: np.ndarray, name: str) -> np.ndarray:
    if isinstance(observation, AudioObservation):
        fits, expected = array.dtype == np.int16 and array.ndim == 1, "int16 (T,)"
    else:
        channels = observation.channels
        fits = array.dtype == np.float32 and array.ndim == 2 and array.shape[1] == channels
        expected = f"float32 (T, {channels})"
    if not fits or not len(array):
        raise UserError(f"{name}: {array.dtype} {array.shape}; expected {expected}, T at least 1")
    return array
