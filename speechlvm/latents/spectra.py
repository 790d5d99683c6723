"""Spectra for comparison with latents: the information in the short-time spectrum alone (source A, 3.2).

mel is the mel power spectrogram, logmel its logarithm, mfcc the first coefficients of the orthonormal cosine transform
of logmel. The paper does not say whether the logarithm was taken, hence both. Hop and window are those of
`speechlvm.data.dumps.features`: 64 and 256 frames at any rate, as steps of models are also in frames; step i is centred
at frame 64 i, and an utterance of T frames has T // 64 + 1 steps. At 16 000 Hz, bins 0 and 3 are empty: they are
narrower than the spacing of the 129 frequencies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from speechlvm.data.dumps.dump import Dump
from speechlvm.data.dumps.features import MEL_BINS, MEL_FLOOR, MEL_HOP_FRAMES, MEL_WINDOW_FRAMES, log_of_mel, mel_power
from speechlvm.data.dumps.pcm import PCMDump
from speechlvm.latents.store import Representation, Values
from speechlvm.utils.errors import UserError

PART_FRAMES = 8192 * MEL_HOP_FRAMES
"""Maximum frames processed at once; does not change results."""

COEFFICIENTS = 20
"""Number of MFCCs, including c0: 13 are usual for phones, higher ones distinguish speakers."""

SETTINGS = {
    "hop_frames": MEL_HOP_FRAMES,
    "window_frames": MEL_WINDOW_FRAMES,
    "mel_bins": MEL_BINS,
    "floor": MEL_FLOOR,
    "coefficients": COEFFICIENTS,
}
"""Everything that spectra depend on besides the audio."""

REPRESENTATIONS = tuple(
    Representation(name, "spectrum", MEL_HOP_FRAMES, 0.0, dimensions)
    for name, dimensions in (("logmel", MEL_BINS), ("mel", MEL_BINS), ("mfcc", COEFFICIENTS))
)


def spectra(rate_hz: int) -> Callable[[np.ndarray], Values]:
    """A function int16 (T,), T >= 1 -> values of `REPRESENTATIONS`, each (T // 64 + 1, D) float32."""
    from torchaudio.functional import create_dct

    power = mel_power(rate_hz)
    cosines = create_dct(COEFFICIENTS, MEL_BINS, norm="ortho").numpy()

    def apply(samples: np.ndarray) -> Values:
        mel = power(samples)
        logarithm = log_of_mel(mel)
        return {"logmel": {"mean": logarithm}, "mel": {"mean": mel}, "mfcc": {"mean": logarithm @ cosines}}

    return apply


def of_dump(dump: Dump, utterances: list[str]) -> Iterator[tuple[str, Values]]:
    """(utterance, values) for `store.write`; long utterances in parts.

    Raises:
        UserError: the dump does not hold audio.
    """
    if not isinstance(dump, PCMDump):
        raise UserError(f"{dump.directory}: holds vectors; spectra are made of audio only")
    return _of_utterances(dump, utterances)


def _of_utterances(dump: Dump, utterances: list[str]) -> Iterator[tuple[str, Values]]:
    apply = spectra(dump.rate_hz)
    for utterance in utterances:
        frames = dump.records[utterance].frames
        for first in range(0, frames, PART_FRAMES):
            last = min(first + PART_FRAMES, frames)
            start = max(0, first - MEL_WINDOW_FRAMES)
            values = apply(dump.read(utterance, start, min(frames, last + MEL_WINDOW_FRAMES)))
            # steps are centred from the first frame of the part on; later ones belong to the next part
            skipped = (first - start) // MEL_HOP_FRAMES
            kept = slice(skipped, None if last == frames else skipped + PART_FRAMES // MEL_HOP_FRAMES)
            yield utterance, {name: {"mean": of["mean"][kept]} for name, of in values.items()}
