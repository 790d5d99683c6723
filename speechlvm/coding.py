"""Codings of 16-bit PCM: integer codes, the real values the networks see, and the cells whose masses are probabilities.

A coding is three tables built in float64 and rounded once:

    PCM value v in [-32768, 32767] --codes--> code k in [0, K) --values--> network input in [-1, 1]
                                                      |
                                                      +--edges--> cell [e_k, e_k+1) of the real line

Because neighbouring cells share their edge in one float32 table, the masses of all K cells sum to one by construction.
The outermost edges are +-1e18 (infinities would give NaN gradients).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speechlvm.utils.errors import ConfigError

PCM_VALUES = 65536
PCM_OFFSET = 32768
OUTERMOST_EDGE = 1e18


def compand(x: np.ndarray, mu: float) -> np.ndarray:
    """Mu-law companding f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu) in float64 (ITU-T G.711; source A, 3)."""
    return np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu)


def expand(y: np.ndarray, mu: float) -> np.ndarray:
    """Inverse of `compand`."""
    return np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu


@dataclass(frozen=True)
class Coding:
    """Tables of one coding.

    Attributes:
        name: name in configurations and results.
        codes: (65536,) int32, code of PCM value v at index v + 32768.
        values: (K,) float32, network input of each code, in [-1, 1].
        edges: (K + 1,) float32, strictly increasing; code k has the cell [edges[k], edges[k + 1]).
        pcm: (K,) int16, the PCM value that each code decodes to.
    """

    name: str
    codes: np.ndarray
    values: np.ndarray
    edges: np.ndarray
    pcm: np.ndarray

    @property
    def size(self) -> int:
        """Number of codes K."""
        return len(self.values)

    @property
    def lossless(self) -> bool:
        """Whether every PCM value has a code of its own, so that bits are bits of the PCM signal."""
        return self.size == PCM_VALUES and len(np.unique(self.codes)) == PCM_VALUES


def _pcm_values() -> np.ndarray:
    return np.arange(PCM_VALUES, dtype=np.float64) - PCM_OFFSET


def _close(edges: np.ndarray) -> np.ndarray:
    """Put the outermost edges far beyond all data, round once to float32, and check that they are a partition."""
    edges = edges.copy()
    edges[0], edges[-1] = -OUTERMOST_EDGE, OUTERMOST_EDGE
    edges = edges.astype(np.float32)
    if not np.all(np.diff(edges) > 0):
        raise AssertionError("cell edges must increase strictly in float32")
    return edges


def _uniform_grid(name: str, size: int, mu: float) -> Coding:
    """Companded values rounded to the uniform grid of `size` codes on [-1, 1] (half to even)."""
    companded = compand(_pcm_values() / PCM_OFFSET, mu)
    codes = np.rint((companded + 1.0) / 2.0 * (size - 1)).astype(np.int32)
    values = -1.0 + 2.0 * np.arange(size, dtype=np.float64) / (size - 1)
    edges = -1.0 + (2.0 * np.arange(size + 1, dtype=np.float64) - 1.0) / (size - 1)
    pcm = np.clip(np.rint(expand(values, mu) * PCM_OFFSET), -PCM_OFFSET, PCM_OFFSET - 1).astype(np.int16)
    return Coding(name, codes, values.astype(np.float32), _close(edges), pcm)


def _per_pcm_value(name: str, warp: Callable[[np.ndarray], np.ndarray]) -> Coding:
    """One code per PCM value v with cell [warp((v - 1/2) / 32768), warp((v + 1/2) / 32768))."""
    values = warp(_pcm_values() / PCM_OFFSET)
    edges = warp((np.arange(PCM_VALUES + 1, dtype=np.float64) - 0.5 - PCM_OFFSET) / PCM_OFFSET)
    return Coding(
        name,
        np.arange(PCM_VALUES, dtype=np.int32),
        values.astype(np.float32),
        _close(edges),
        _pcm_values().astype(np.int16),
    )


_MU_16BIT = 2.0**16 - 1.0
_MU_8BIT = 2.0**8 - 1.0

_BUILDERS: dict[str, Callable[[], Coding]] = {
    # Source A: 16-bit mu-law; 20 127 of the 65 536 codes are reached by PCM values.
    "mulaw": lambda: _uniform_grid("mulaw", 2**16, _MU_16BIT),
    # The original WaveNet's 256 codes.
    "mulaw8": lambda: _uniform_grid("mulaw8", 2**8, _MU_8BIT),
    # Directly comparable with FLAC.
    "linear": lambda: _per_pcm_value("linear", lambda x: x),
    # The network sees companded values, the likelihood is of the PCM signal.
    "mulaw-pcm": lambda: _per_pcm_value("mulaw-pcm", lambda x: compand(x, _MU_16BIT)),
}
CODINGS = tuple(_BUILDERS)
PCM_CODINGS = ("linear", "mulaw-pcm")
"""Codings whose bits are bits of the PCM signal, comparable with each other and with FLAC."""
CONTINUOUS = "normalised"
"""Used instead of a coding: real numbers, normalised by the mean and standard deviation of the training set."""
OBSERVATIONS = (*CODINGS, CONTINUOUS)


def build_coding(name: str) -> Coding:
    """Tables of the coding `name`.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _BUILDERS:
        raise ConfigError(f"coding: '{name}' is unknown; expected one of {', '.join(OBSERVATIONS)}")
    return _BUILDERS[name]()
