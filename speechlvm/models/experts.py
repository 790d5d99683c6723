"""What autoregressive systems with `experts: adaptive` know of each frame: the adaptive reference before it.

The reference (`models/adaptive.py`) runs over an utterance from its beginning; it has no weights, so all it knows is a
function of the past samples. Before each frame it gives `FEATURES` numbers for the network, its predictions and its
scale, around which the output distribution (`distributions/experts.py`) has its components, and its own mixture, which
is one of them. The output can hardly do worse than the reference, and the network learns only what is left.

Scoring, sampling and coding call the same compiled functions, so that they know the same to the bit.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numba import njit
from torch import Tensor

from speechlvm.coding import PCM_OFFSET, PCM_VALUES
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.experts import ExpertMixture
from speechlvm.models.adaptive import (
    BANK,
    COMBINERS,
    MAIN,
    MULTIPLES,
    SHAPES,
    TRACKERS,
    UNIFORM,
    State,
    cdf,
    pack,
    start,
    unpack,
    update,
)
from speechlvm.models.bound import Features
from speechlvm.modules.rls import compiled, internal, log2
from speechlvm.utils.devices import to_device

_PREDICTIONS = len(COMBINERS) + len(BANK) + 2
_WEIGHTS = len(COMBINERS) * len(SHAPES)
_LOG2_MULTIPLES = tuple(math.log2(multiple) for multiple in MULTIPLES)
_MEMORY = 2  # behind the reference's own state: error of the last frame in units of the scale, log2 of its mass

FEATURES = _PREDICTIONS + len(TRACKERS) + len(COMBINERS) + 10
"""Numbers that a network is shown of each frame."""
KNOWN = FEATURES + _PREDICTIONS + 1
"""These, predictions and scale: all that is known before a frame but the weights of the mixture."""


class Experts:
    """The adaptive reference beside a network, over batches of frames with coding `linear`."""

    def distribution(self, given: DiscretizedLogisticMixture) -> ExpertMixture:
        """The output, with as many logistics as a given distribution has."""
        return ExpertMixture(PCM_VALUES, given.components, _PREDICTIONS, len(COMBINERS), SHAPES, MULTIPLES, UNIFORM)

    def initial_state(self, batch: int, device: torch.device) -> Tensor:
        """(B, N) float64, before the first frame."""
        packed, _ = _initial()
        return to_device(torch.from_numpy(packed), device).repeat(batch, 1)

    def look(
        self,
        state: Tensor,
        inputs: Tensor,
        lengths: Tensor | None = None,
        target: Tensor | None = None,
        features: Features | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Go through a chunk.

        Args:
            state: (B, N) before it.
            inputs: (B, T, 1) its frames.
            lengths: (B,) of them that are real; None: all.
            target: (B, T, 1) the same as codes, of which the mass is asked; None: not asked.
            features: "experts", known already (`of_utterance`); the state is then handed on as it is.

        Returns:
            (B, T, KNOWN + 1) known before each frame, then log m of the target, 0 beyond the lengths; the state after.
        """
        if features:
            return features["experts"].values, state
        pcm = (inputs.detach().squeeze(-1) * PCM_OFFSET).round().long().cpu().numpy()
        scored = pcm if target is None else target.squeeze(-1).cpu().numpy() - PCM_OFFSET
        counts = [pcm.shape[1]] * len(pcm) if lengths is None else lengths.clamp(0, pcm.shape[1]).tolist()
        packed = state.cpu().numpy().copy()
        known = np.zeros((*pcm.shape, KNOWN + 1))
        _, places = _initial()

        def walk(row: int) -> None:
            count = counts[row]
            _walk(packed[row], places, pcm[row, :count], scored[row, :count], known[row])

        threads = min(torch.get_num_threads(), len(pcm))
        if threads < 2:
            for row in range(len(pcm)):
                walk(row)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(walk, range(len(pcm))))
        return torch.from_numpy(known).to(inputs.device), torch.from_numpy(packed).to(inputs.device)

    def seen(self, known: Tensor) -> Tensor:
        """Of what `look` gives, the features (B, T, FEATURES) for the network."""
        return known[..., :FEATURES]

    def steps(self, state: Tensor) -> ExpertSteps:
        """To go on frame by frame from a state (B, N)."""
        return ExpertSteps(state)

    def log_prob(self, distribution: ExpertMixture, outputs: Tensor, known: Tensor, target: Tensor) -> Tensor:
        """Log-mass (B, T) in nats of targets (B, T, 1), from outputs (B, T, P) and what `look` gives."""
        _, predictions, scale, log_mass = known.flatten(0, 1).split([FEATURES, _PREDICTIONS, 1, 1], -1)
        scale = scale.squeeze(-1).clamp(min=0.1)  # 0 in the padding, where gradients must be finite, too
        values = distribution.log_prob_beside(
            outputs.flatten(0, 1), predictions, scale, log_mass.squeeze(-1), target.reshape(-1)
        )
        return values.view(target.shape[:2])


def of_utterance(pcm: np.ndarray) -> np.ndarray:
    """What `Experts.look` gives of an utterance (T,) int16 from its beginning, as float32 (T, KNOWN + 1)."""
    packed, places = _initial()
    known, pcm = np.empty((len(pcm), KNOWN + 1)), pcm.astype(np.int64)
    _walk(packed.copy(), places, pcm, pcm, known)
    return known.astype(np.float32)


class ExpertSteps:
    """The same frame by frame, from a state.

    Attributes:
        state: (B, N) float64 on the CPU; changed by `push`.
    """

    def __init__(self, state: Tensor) -> None:
        self.state = state.cpu().clone()
        self._device = state.device
        self._packed, (_, self._places) = self.state.numpy(), _initial()
        self._known = np.empty((len(self._packed), KNOWN + _WEIGHTS))
        _report_rows(self._packed, self._places, self._known)

    @property
    def features(self) -> Tensor:
        """(B, FEATURES) of the coming frame."""
        return torch.from_numpy(self._known[:, :FEATURES].copy()).to(self._device)

    def parameters(self, outputs: Tensor) -> Tensor:
        """(B, 1, P + ...) float64 of the coming frame, from the network's outputs (B, 1, P)."""
        known = torch.from_numpy(self._known[:, None, FEATURES:].copy()).to(self._device)
        return torch.cat([outputs.double(), known], -1)

    def push(self, inputs: Tensor) -> None:
        """The coming frame (B, 1) becomes the last one."""
        pcm = (inputs.flatten() * PCM_OFFSET).round().long().cpu().numpy()
        _step_rows(self._packed, self._places, pcm, self._known)


@cache
def _initial() -> tuple[np.ndarray, np.ndarray]:
    """Packed state before the first frame, and the places of the filters."""
    state = start()
    return np.concatenate([pack(state), np.zeros(_MEMORY)]), state.rls.places


# --- Compiled ---------------------------------------------------------------------------------------------------------


@internal
def _squashed(x: float) -> float:
    """Linear near 0, within (-4, 4)."""
    return x / (1.0 + 0.25 * abs(x))


@internal
def _report(state: State, memory: np.ndarray, known: np.ndarray) -> None:
    """Features, predictions and scale of the coming frame."""
    last, before, centres, inputs, logs = state.past[0], state.past[1], state.centres, state.inputs, state.features
    scale, level = state.scale[0] + 0.1, state.trackers[len(TRACKERS)] + 1.0
    centre, log_scale = centres[MAIN], log2(scale)

    for i in range(len(COMBINERS)):
        known[FEATURES + i] = centres[i]
    for i in range(len(BANK) + 2):
        known[FEATURES + len(COMBINERS) + i] = inputs[i]
    known[KNOWN - 1] = scale

    place = 0
    for i in range(_PREDICTIONS):
        if i != MAIN:
            known[place] = _squashed((known[FEATURES + i] - centre) / scale)
            place += 1
    for i in range(len(TRACKERS) + 1):  # and the spread of the bank
        known[place] = logs[i] - log_scale
        place += 1
    known[place] = _squashed((last - centre) / scale)
    known[place + 1] = _squashed((last - before) / scale)
    known[place + 2] = _squashed(memory[0])
    known[place + 3] = memory[1] / 4.0
    known[place + 4] = (log_scale - 5.0) / 3.0
    known[place + 5] = (logs[len(TRACKERS) + 1] - log_scale) / 3.0
    known[place + 6] = _squashed(last / level)
    known[place + 7] = _squashed(centre / level)
    multiple, heavy = 0.0, 0.0
    for i in range(len(COMBINERS)):
        of_centre = 0.0
        for n in range(len(SHAPES)):
            weight = state.weights[i * len(SHAPES) + n]
            of_centre += weight
            multiple += weight * _LOG2_MULTIPLES[n]
            if SHAPES[n] == 4:
                heavy += weight
        known[place + 8 + i] = 3.0 * of_centre - 1.0
    place += 8 + len(COMBINERS)
    known[place] = multiple
    known[place + 1] = 2.0 * heavy - 1.0


@internal
def _push(state: State, memory: np.ndarray, value: int) -> float:
    """Append a PCM value to the past; returns its mass."""
    scale = state.scale[0] + 0.1
    error = (value - state.centres[MAIN]) / scale
    mass = update(state, value)
    memory[0] = error
    memory[1] = log2(mass * scale)
    return mass


@njit(error_model="numpy", nogil=True)
def _walk(packed: np.ndarray, places: np.ndarray, learned: np.ndarray, scored: np.ndarray, known: np.ndarray) -> None:
    """Append frames `learned` (T,) to the past; masses are of the values `scored` (T,), usually the same."""
    state, memory = unpack(packed, places), packed[len(packed) - _MEMORY :]
    for t in range(len(learned)):
        _report(state, memory, known[t])
        mass = cdf(state, scored[t] + 1) - cdf(state, scored[t]) if scored[t] != learned[t] else 0.0
        own = _push(state, memory, learned[t])
        known[t, KNOWN] = math.log(own if scored[t] == learned[t] else mass)


@compiled
def _report_rows(packed: np.ndarray, places: np.ndarray, known: np.ndarray) -> None:
    for row in range(len(packed)):
        state = unpack(packed[row], places)
        _report(state, packed[row, packed.shape[1] - _MEMORY :], known[row])
        known[row, KNOWN:] = state.weights


@compiled
def _step_rows(packed: np.ndarray, places: np.ndarray, values: np.ndarray, known: np.ndarray) -> None:
    for row in range(len(packed)):
        state, memory = unpack(packed[row], places), packed[row, packed.shape[1] - _MEMORY :]
        _push(state, memory, values[row])
        _report(state, memory, known[row])
        known[row, KNOWN:] = state.weights
