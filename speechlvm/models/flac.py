"""FLAC at its highest level: the lossless compressor to which likelihoods of PCM are compared."""

from __future__ import annotations

import io
import math

import numpy as np
import soundfile

from speechlvm.coding import Coding


class FLAC:
    """Counts the bytes of each utterance's FLAC file, headers included.

    Args:
        rate_hz: sampling rate written into the header.
    """

    bound = "code-length"
    coding = "linear"  # the PCM signal itself, whatever the coding of the other systems
    parameters = 0

    def __init__(self, rate_hz: int = 16000) -> None:
        self.rate_hz = rate_hz

    @classmethod
    def fit(cls, histogram: np.ndarray, coding: Coding) -> FLAC:
        """Fits nothing: FLAC adapts to each file, and always codes PCM."""
        return cls()

    def encode(self, pcm: np.ndarray) -> memoryview:
        """The FLAC file of int16 PCM (T,)."""
        file = io.BytesIO()
        soundfile.write(file, pcm, self.rate_hz, subtype="PCM_16", format="FLAC", compression_level=1.0)
        return file.getbuffer()

    def bytes(self, pcm: np.ndarray) -> int:
        """Size of the FLAC file of int16 PCM (T,)."""
        return self.encode(pcm).nbytes

    def nats(self, pcm: np.ndarray) -> float:
        """Negative code length of int16 PCM (T,) in nats."""
        return -8.0 * self.bytes(pcm) * math.log(2.0)


class FLACProgram(FLAC):
    """Counts the bytes of files as `flac --best` writes them by default, with padding for tags and a seek table.

    Sizes are the same as those of version 1.4.2 of the program, to the byte.
    """

    def bytes(self, pcm: np.ndarray) -> int:
        """Size of the file that the program writes for int16 PCM (T,)."""
        padding = 4 + (65536 if len(pcm) >= 20 * 60 * self.rate_hz else 8192)
        seek_table = 4 + 18 * -(-len(pcm) // (10 * self.rate_hz))
        return super().bytes(pcm) + padding + seek_table
