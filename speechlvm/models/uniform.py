"""Uniform distribution over codes: the baseline without any model (16 bits per frame for 16-bit codes)."""

from __future__ import annotations

import math

import numpy as np

from speechlvm.coding import Coding


class Uniform:
    """All codes are equally probable.

    Args:
        codes: number of codes K.
    """

    bound = "exact"
    parameters = 0

    def __init__(self, codes: int) -> None:
        self.codes = codes

    @classmethod
    def fit(cls, histogram: np.ndarray, coding: Coding) -> Uniform:
        """The uniform distribution over the codes of a coding; the histogram is not used."""
        return cls(coding.size)

    def nats(self, pcm: np.ndarray) -> float:
        """Log-likelihood of int16 PCM (T,) in nats: -T ln K."""
        return -len(pcm) * math.log(self.codes)
