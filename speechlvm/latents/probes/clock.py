"""Features of probes: representations resampled to a common clock, so that all probes have the same steps.

    hop of 64 frames     |  0  |  1  |  2  |  3  |  4  |  5  |  6  |  7  |   4 steps concatenated: 4 D dimensions
    hop of 256 frames    |           0           |           1           |   unchanged
    hop of 512 frames    |                       0                       |   repeated
    clock, 16 ms         |           0           |           1           |

The clock has 62.5 steps per second: twice the rate of steps of 512 frames at 16 kHz, and about five steps per phone,
enough for CTC. If the hop of a representation is between a quarter of a clock step and a whole one, its steps within a
clock step are concatenated, so nothing is lost; steps of smaller hops are averaged over quarters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from speechlvm.latents.store import Representation, Store
from speechlvm.utils.errors import UserError

CLOCK_HZ = 62.5
MOST_STACKED = 4
SLACK_STEPS = 4  # allowed difference in length of utterance and representation: windows and rounding at the ends
LEAST_STD = 1e-6  # constant dimensions become 0
CACHE_BYTES = 2 << 30  # larger features are read again each time


def clock_hop(rate_hz: float) -> int:
    """Frames from one step of the clock to the next."""
    return round(rate_hz / CLOCK_HZ)


def clock_steps(frames: int, hop: int) -> int:
    """Steps of the clock in an utterance; the last may be partial."""
    return -(-frames // hop)


def stacked(representation: Representation, hop: int) -> int:
    """Number of vectors concatenated in one step of a clock of `hop` frames."""
    return min(-(-hop // representation.hop_frames), MOST_STACKED)


def on_clock(values: np.ndarray, representation: Representation, frames: int, hop: int) -> np.ndarray:
    """Resample a representation to the clock.

    Each step of the clock is divided into `stacked` spans; the vector of a span is the mean of the steps centred in it,
    or the nearest step if there is none (`Representation.steps_within`, for all spans at once).

    Args:
        values: (steps, D).
        representation: description of the values.
        frames: number of frames of the utterance.
        hop: hop of the clock in frames.

    Returns:
        (clock_steps, stacked * D) float32.
    """
    width, steps = stacked(representation, hop), clock_steps(frames, hop)
    edges = np.arange(steps * width + 1) * hop // width
    places = (edges - representation.first_centre_frames) / representation.hop_frames
    first = np.clip(np.ceil(places).astype(np.int64), 0, len(values))
    counts = np.diff(first)
    nearest = np.clip(np.floor((places[:-1] + places[1:]) / 2 + 0.5).astype(np.int64), 0, len(values) - 1)
    spans = values[np.where(counts > 0, first[:-1], nearest)].astype(np.float32)
    several = counts > 1
    if several.any():
        sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
        spans[several] = (sums[first[1:]] - sums[first[:-1]])[several] / counts[several, None]
    return spans.reshape(steps, -1)


class Features:
    """One representation of the utterances of several sets, read from disk on access.

    Args:
        name: name of the representation.
        stores: stores of the sets, which share no utterances.
        frames: number of frames, by utterance.
        hop: hop of the clock in frames.
    """

    def __init__(self, name: str, stores: Iterable[Store], frames: Mapping[str, int], hop: int) -> None:
        self._stores = {utterance: store for store in stores for utterance in store.utterances}
        self._frames, self._hop = frames, hop
        self.representation = next(iter(self._stores.values())).representations[name]
        self.dimensions = self.representation.dimensions * stacked(self.representation, hop)
        self._cache: dict[str, np.ndarray] = {}
        self._room_bytes = CACHE_BYTES

    def __getitem__(self, utterance: str) -> np.ndarray:
        """(clock_steps, dimensions) float32, not normalised.

        Raises:
            UserError: the representation does not match the audio of the utterance.
        """
        if utterance in self._cache:
            return self._cache[utterance]
        store, frames, known = self._stores[utterance], self._frames[utterance], self.representation
        values = store.read(known.name, utterance)
        if abs(len(values) * known.hop_frames - frames) > SLACK_STEPS * max(known.hop_frames, self._hop):
            raise UserError(
                f"{store.directory}: {utterance}: {len(values)} steps of {known.hop_frames} frames of {known.name}, "
                f"but {frames} frames in its data directory; give the directory that the representations were made from"
            )
        result = on_clock(values, known, frames, self._hop)
        if result.nbytes <= self._room_bytes:
            self._room_bytes -= result.nbytes
            self._cache[utterance] = result
        return result

    def moments(self, utterances: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each dimension over all steps of some utterances, float32."""
        steps, total, squares = 0, np.zeros(self.dimensions), np.zeros(self.dimensions)
        for utterance in utterances:
            values = self[utterance].astype(np.float64)
            steps, total, squares = steps + len(values), total + values.sum(0), squares + np.square(values).sum(0)
        mean = total / steps
        std = np.sqrt(np.maximum(squares / steps - mean**2, 0.0))
        return mean.astype(np.float32), np.maximum(std, LEAST_STD).astype(np.float32)
