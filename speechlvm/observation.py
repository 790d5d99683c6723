"""Observation: converts raw data to network inputs and targets, and back. Models never see anything else.

Audio has one channel. With a discrete coding the target is a code, whose cell's mass is a probability; with
`normalised` it is the globally normalised sample, whose density is in nats. Sequences of vectors (pen points, joint
angles) have a channel for each column, and are always `normalised`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from speechlvm.coding import CONTINUOUS, OBSERVATIONS, PCM_OFFSET, build_coding
from speechlvm.data.dumps.dump import Dump
from speechlvm.data.dumps.pcm import PCMDump
from speechlvm.modules.frames import frame_mask
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.settings import Settings, checked


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of v / 32768 over the training set."""

    mean: float
    std: float

    @staticmethod
    def of_histogram(histogram: np.ndarray) -> Statistics:
        """Exact statistics from counts of PCM values.

        Raises:
            UserError: the set is empty or constant.
        """
        values = (np.arange(65536, dtype=np.float64) - PCM_OFFSET) / PCM_OFFSET
        total = int(histogram.sum())
        if total == 0:
            raise UserError("the training set has no frames; check the data directory and run stage 2 again")
        mean = float(np.dot(histogram, values) / total)
        variance = float(np.dot(histogram, (values - mean) ** 2) / total)
        if variance == 0.0:
            raise UserError("the training set is constant (one PCM value only); nothing can be normalised or learned")
        return Statistics(mean, variance**0.5)


_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Rate = Annotated[int, Field(gt=0)] | _Positive | None


class _Audio(Settings):
    """Format of `AudioObservation.to_dict`."""

    coding: str
    mean: _Finite
    std: _Positive
    rate_hz: _Rate


class _Vectors(Settings):
    """Format of `VectorObservation.to_dict`."""

    coding: Literal["normalised"]
    channels: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(min_length=1)
    mean: list[_Finite]
    std: list[_Finite]
    rate_hz: _Rate

    @model_validator(mode="after")
    def _fit(self) -> _Vectors:
        kinds = dict(self.channels)
        if not len(kinds) == len(self.channels) == len(self.mean) == len(self.std):
            raise ValueError("channels, mean and std differ in length, or a channel occurs twice")
        for (name, kind), std in zip(self.channels, self.std, strict=True):
            if kind not in ("real", "binary") or not std > 0 and kind == "real":
                raise ValueError(f"channel '{name}' is '{kind}' with a standard deviation of {std}")
        return self


class Observation(ABC):
    """Maps raw data to the inputs of a model and to the targets that it predicts.

    Attributes:
        coding: one of `OBSERVATIONS`.
        kinds: "code", "real" or "binary" for each channel; inputs and targets have one number per channel.
        rate_hz: frames per second of the training set; None if it is unknown or frames have no rate.
        edges: (codes + 1,) cell edges of a discrete coding; None if targets are real numbers.
    """

    coding: str
    kinds: tuple[str, ...]
    rate_hz: float | None
    edges: np.ndarray | None = None

    @property
    def channels(self) -> int:
        """C, number of channels."""
        return len(self.kinds)

    @property
    def continuous(self) -> bool:
        """Whether targets are real numbers, and likelihoods densities."""
        return self.edges is None

    @staticmethod
    def of_dump(coding: str, dump: Dump) -> Observation:
        """The observation of a training set.

        Raises:
            ConfigError: an audio coding for data that is not audio.
            UserError: the set is empty or constant.
        """
        if isinstance(dump, PCMDump):
            return AudioObservation(coding, Statistics.of_histogram(dump.histogram), rate_hz=dump.rate_hz)
        if coding != CONTINUOUS:
            raise ConfigError(f"coding: '{coding}' is for audio; expected {CONTINUOUS} for vectors")
        stds = zip(dump.channels.items(), dump.std, strict=True)
        # binary ones are not divided by their standard deviation
        if constant := [name for (name, kind), std in stds if kind == "real" and std == 0]:
            raise UserError(
                f"{dump.directory}: constant in the training set: {', '.join(constant)}; leave them out of the data"
            )
        return VectorObservation(dump.channels, dump.mean.tolist(), dump.std.tolist(), rate_hz=dump.rate_hz)

    @staticmethod
    def from_dict(value: dict, device: torch.device | str = "cpu", source: str = "observation") -> Observation:
        """Inverse of `to_dict`.

        Raises:
            UserError: not a result of `to_dict`; the message names `source`.
        """
        if isinstance(value, dict) and "channels" in value:
            vectors = checked(_Vectors, value, source)
            return VectorObservation(dict(vectors.channels), vectors.mean, vectors.std, device, vectors.rate_hz)
        audio = checked(_Audio, value, source)
        return AudioObservation(audio.coding, Statistics(audio.mean, audio.std), device, audio.rate_hz)

    def check(self, dump: Dump) -> None:
        """Check that a dump matches this observation.

        Raises:
            UserError: audio instead of vectors or vice versa, other channels, or another rate.
        """
        found = "audio" if isinstance(dump, PCMDump) else _listed(dump.channels)
        if found != self.contents:
            raise UserError(f"{dump.directory}: holds {found}; the model is trained on {self.contents}")
        if self.rate_hz is not None and dump.rate_hz != self.rate_hz:
            raise UserError(
                f"{dump.directory}: has {dump.rate_hz} frames per second; the model is trained on {self.rate_hz}"
            )

    @property
    @abstractmethod
    def contents(self) -> str:
        """Description of the data that a dump must hold, for messages."""

    @abstractmethod
    def to_dict(self) -> dict:
        """Plain values for checkpoints."""

    @abstractmethod
    def inputs(self, data: Tensor, lengths: Tensor) -> Tensor:
        """Network inputs (B, T, C) of raw data (B, T, ...), zero beyond the lengths (B,)."""

    @abstractmethod
    def target(self, data: Tensor) -> Tensor:
        """Targets (B, T, C) of raw data (B, T, ...)."""

    @abstractmethod
    def inputs_of(self, target: Tensor) -> Tensor:
        """Network inputs (..., C) of sampled targets (..., C)."""

    @abstractmethod
    def decode(self, target: Tensor) -> Tensor:
        """Raw data of targets (..., C)."""

    @abstractmethod
    def marginal(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Distinct targets (N, C) and counts (N,) from `Dump.marginal`, for `Distribution.initial_bias`."""


def _listed(channels: dict[str, str]) -> str:
    return f"vectors ({', '.join(f'{name} {kind}' for name, kind in channels.items())})"


class AudioObservation(Observation):
    """Observation of 16-bit PCM (B, T) under a coding.

    Args:
        coding: one of `OBSERVATIONS`.
        statistics: statistics of the training set, used by `normalised` only.
        device: device of the lookup tables.
        rate_hz: see `Observation`.
    """

    contents = "audio"

    def __init__(
        self,
        coding: str,
        statistics: Statistics,
        device: torch.device | str = "cpu",
        rate_hz: float | None = None,
    ) -> None:
        if coding not in OBSERVATIONS:
            raise ConfigError(f"coding: '{coding}' is unknown; expected one of {', '.join(OBSERVATIONS)}")
        self.coding = coding
        self.statistics = statistics
        self.rate_hz = rate_hz
        self.kinds = ("real",) if coding == CONTINUOUS else ("code",)
        pcm = np.arange(65536, dtype=np.float64) - PCM_OFFSET
        if coding == CONTINUOUS:
            self.tables = None
            normalised = (pcm / PCM_OFFSET - statistics.mean) / statistics.std
            self._inputs = torch.from_numpy(normalised.astype(np.float32)).to(device)
        else:
            self.tables = build_coding(coding)
            self.edges = self.tables.edges
            self._codes = torch.from_numpy(self.tables.codes.astype(np.int64)).to(device)
            self._values = torch.from_numpy(self.tables.values).to(device)
            self._inputs = self._values[self._codes]
            self._pcm = torch.from_numpy(self.tables.pcm).to(device)

    def to_dict(self) -> dict:
        """Plain values for checkpoints."""
        statistics = {"mean": self.statistics.mean, "std": self.statistics.std}
        return {"coding": self.coding, **statistics, "rate_hz": self.rate_hz}

    def inputs(self, data: Tensor, lengths: Tensor) -> Tensor:
        """Network inputs (B, T, 1) of int16 PCM (B, T), zero beyond the lengths (B,)."""
        values = self._inputs[data.to(torch.int64) + PCM_OFFSET]
        return (values * frame_mask(lengths, data.shape[1])).unsqueeze(-1)

    def target(self, data: Tensor) -> Tensor:
        """Targets (B, T, 1) of int16 PCM (B, T): int64 codes, or normalised samples."""
        index = data.to(torch.int64) + PCM_OFFSET
        return (self._inputs[index] if self.continuous else self._codes[index]).unsqueeze(-1)

    def inputs_of(self, target: Tensor) -> Tensor:
        """Network inputs (..., 1) of sampled targets (..., 1)."""
        return target if self.continuous else self._values[target]

    def decode(self, target: Tensor) -> Tensor:
        """PCM (...) int16 of targets (..., 1); samples beyond 16 bits are clipped."""
        target = target.squeeze(-1)
        if not self.continuous:
            return self._pcm[target]
        pcm = torch.round((target * self.statistics.std + self.statistics.mean) * PCM_OFFSET)
        return pcm.clamp(-PCM_OFFSET, PCM_OFFSET - 1).to(torch.int16)

    def marginal(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Distinct targets (N, 1) and counts (N,) of a histogram of PCM values (65536,)."""
        present = np.flatnonzero(frames)
        pcm = torch.from_numpy((present - PCM_OFFSET).astype(np.int16))
        return self.target(pcm[None].to(self._inputs.device))[0].cpu(), torch.from_numpy(frames[present])


class VectorObservation(Observation):
    """Observation of vectors (B, T, C): real channels are normalised over the training set, binary ones unchanged.

    Args:
        channels: name -> real | binary, in the order of the columns.
        mean: mean of each channel over the training set.
        std: standard deviation of each channel over the training set.
        device: device of the means and standard deviations.
        rate_hz: see `Observation`.
    """

    coding = CONTINUOUS

    def __init__(
        self,
        channels: dict[str, str],
        mean: list[float],
        std: list[float],
        device: torch.device | str = "cpu",
        rate_hz: float | None = None,
    ) -> None:
        self.names, self.kinds = tuple(channels), tuple(channels.values())
        self.mean, self.std = list(mean), list(std)
        self.rate_hz = rate_hz
        binary = torch.tensor([kind == "binary" for kind in self.kinds])
        self._shift = torch.where(binary, 0.0, torch.tensor(mean, dtype=torch.float64)).float().to(device)
        self._scale = torch.where(binary, 1.0, torch.tensor(std, dtype=torch.float64)).float().to(device)

    def to_dict(self) -> dict:
        """Plain values for checkpoints."""
        channels = list(map(list, zip(self.names, self.kinds, strict=True)))
        statistics = {"mean": self.mean, "std": self.std}
        return {"coding": self.coding, "channels": channels, **statistics, "rate_hz": self.rate_hz}

    @property
    def contents(self) -> str:
        """Description of the data that a dump must hold, for messages."""
        return _listed(dict(zip(self.names, self.kinds, strict=True)))

    def inputs(self, data: Tensor, lengths: Tensor) -> Tensor:
        """Network inputs (B, T, C) of vectors (B, T, C), zero beyond the lengths (B,)."""
        return self.target(data) * frame_mask(lengths, data.shape[1]).unsqueeze(-1)

    def target(self, data: Tensor) -> Tensor:
        """Normalised vectors (B, T, C)."""
        return (data - self._shift) / self._scale

    def inputs_of(self, target: Tensor) -> Tensor:
        """The targets themselves."""
        return target

    def decode(self, target: Tensor) -> Tensor:
        """Vectors (..., C) in the units of the data, float32."""
        return target.float() * self._scale + self._shift

    def marginal(self, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """Normalised frames (N, C), each counted once."""
        return self.target(torch.from_numpy(frames).to(self._shift.device)).cpu(), torch.ones(len(frames))
