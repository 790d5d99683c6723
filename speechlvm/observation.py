"""Observation: what turns raw data into network inputs and targets, and back. Models never see anything else.

Audio has one channel. With a discrete coding the target is a code, whose cell's mass is a probability; with
`normalised` it is the globally normalised sample, whose density is in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from speechlvm.coding import CODINGS, PCM_OFFSET, build_coding
from speechlvm.errors import ConfigError, UserError

CONTINUOUS = "normalised"
OBSERVATIONS = (*CODINGS, CONTINUOUS)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of v / 32768 over the training set."""

    mean: float
    std: float

    @staticmethod
    def of_histogram(histogram: np.ndarray) -> Statistics:
        """Exact statistics from the counts of PCM values.

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
            raise UserError("the training set is constant (one PCM value only); nothing can be normalised or learnt")
        return Statistics(mean, variance**0.5)


class Observation:
    """The observation of 16-bit PCM under a coding.

    Args:
        coding: one of `OBSERVATIONS`.
        statistics: of the training set; used by `normalised` only.
        device: of the lookup tables.
    """

    channels = 1
    event_size = 1

    def __init__(self, coding: str, statistics: Statistics, device: torch.device | str = "cpu") -> None:
        if coding not in OBSERVATIONS:
            raise ConfigError(f"coding: '{coding}' is unknown; expected one of {', '.join(OBSERVATIONS)}")
        self.coding = coding
        self.statistics = statistics
        self.continuous = coding == CONTINUOUS
        pcm = np.arange(65536, dtype=np.float64) - PCM_OFFSET
        if self.continuous:
            self.tables = None
            normalised = (pcm / PCM_OFFSET - statistics.mean) / statistics.std
            self._inputs = torch.from_numpy(normalised.astype(np.float32)).to(device)
        else:
            self.tables = build_coding(coding)
            self._codes = torch.from_numpy(self.tables.codes.astype(np.int64)).to(device)
            self._values = torch.from_numpy(self.tables.values).to(device)
            self._inputs = self._values[self._codes]
            self._pcm = torch.from_numpy(self.tables.pcm).to(device)

    def to_dict(self) -> dict:
        """What a checkpoint keeps."""
        return {"coding": self.coding, "mean": self.statistics.mean, "std": self.statistics.std}

    @staticmethod
    def from_dict(value: dict, device: torch.device | str = "cpu") -> Observation:
        """Inverse of `to_dict`."""
        return Observation(value["coding"], Statistics(value["mean"], value["std"]), device)

    def inputs(self, pcm: Tensor, lengths: Tensor) -> Tensor:
        """Network inputs (B, T, 1) of int16 PCM (B, T), zero beyond the lengths (B,)."""
        values = self._inputs[pcm.to(torch.int64) + PCM_OFFSET]
        mask = torch.arange(pcm.shape[1], device=pcm.device)[None, :] < lengths[:, None]
        return (values * mask).unsqueeze(-1)

    def target(self, pcm: Tensor) -> Tensor:
        """Targets (B, T, 1) of int16 PCM (B, T): int64 codes, or normalised samples."""
        index = pcm.to(torch.int64) + PCM_OFFSET
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

    def marginal(self, histogram: np.ndarray) -> tuple[Tensor, Tensor]:
        """Distinct targets (N, 1) and counts (N,) of a histogram of PCM values, for `Distribution.initial_bias`."""
        present = np.flatnonzero(histogram)
        pcm = torch.from_numpy((present - PCM_OFFSET).astype(np.int16))
        return self.target(pcm[None].to(self._inputs.device))[0].cpu(), torch.from_numpy(histogram[present])
