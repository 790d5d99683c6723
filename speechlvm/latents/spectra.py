"""Spectra for comparison with latents: the information in the short-time spectrum alone (source A, 3.2).

mel is the mel power spectrogram, logmel its logarithm, mfcc the first coefficients of the orthonormal cosine transform
of logmel. The paper names the first without saying whether a logarithm was taken, hence both. Hop and window are those
of `speechlvm.data.dumps.features`: 64 and 256 frames whatever the rate, as steps of models are counted in frames too;
step i is centred at frame 64 i, and an utterance of T frames has T // 64 + 1 steps. At 16 000 Hz bins 0 and 3 hold
nothing: they are narrower than the spacing of the 129 frequencies.
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
"""Of mfcc, the one of the level (c0) among them: 13 are classical for phones, finer ones tell speakers apart."""

SETTINGS = {
    "hop_frames": MEL_HOP_FRAMES,
    "window_frames": MEL_WINDOW_FRAMES,
    "mel_bins": MEL_BINS,
    "floor": MEL_FLOOR,
    "coefficients": COEFFICIENTS,
}
"""What spectra depend on besides the audio."""

REPRESENTATIONS = tuple(
    Representation(name, "spectrum", MEL_HOP_FRAMES, 0.0, dimensions)
    for name, dimensions in (("logmel", MEL_BINS), ("mel", MEL_BINS), ("mfcc", COEFFICIENTS))
)


def spectra(rate_hz: int) -> Callable[[np.ndarray], Values]:
    """int16 (T,), T >= 1 -> values of `REPRESENTATIONS`, each (T // 64 + 1, D) float32."""
    from torchaudio.functional import create_dct

    power = mel_power(rate_hz)
    cosines = create_dct(COEFFICIENTS, MEL_BINS, norm="ortho").numpy()

    def apply(samples: np.ndarray) -> Values:
        mel = power(samples)
        logarithm = log_of_mel(mel)
        return {"logmel": {"mean": logarithm}, "mel": {"mean": mel}, "mfcc": {"mean": logarithm @ cosines}}

    return apply


def of_dump(dump: Dump, utterances: list[str]) -> Iterator[tuple[str, Values]]:
    """(utterance, its values) for `store.write`; long ones in parts.

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
            # steps are centred from the first frame on; those of the next part are left to it
            skipped = (first - start) // MEL_HOP_FRAMES
            kept = slice(skipped, None if last == frames else skipped + PART_FRAMES // MEL_HOP_FRAMES)
            yield utterance, {name: {"mean": of["mean"][kept]} for name, of in values.items()}
