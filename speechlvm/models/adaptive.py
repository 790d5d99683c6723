"""An adaptive linear reference: what classical lossless audio coding does best, as a likelihood of 16-bit PCM.

Nothing is trained: each utterance starts from the same state, and all that is learned comes from its own past, so
p(x_t | x_<t) is causal by construction, at any sampling rate. In each frame

1. recursive least squares (RLS) of several orders and memories, an NLMS filter with a long history, and an RLS of what
   the NLMS leaves over predict x_t from the past;
2. further RLS filters of different memories combine these predictions to the centres mu_c of a mixture;
3. a log-linear model, learned online by natural gradients, predicts the scale s of the error from trackers of past
   errors, the spread of the predictions and the level of the signal;
4. the mixture has a Student-t component for each centre, shape nu and multiple of s, with weights learned by
   fixed-share Bayesian updates (Herbster, Warmuth 1998).

RLS is weighted: a frame's variance is taken as 0.85 s^2 + 0.15 e^2, so that neither loud stretches nor outliers, such
as glottal pulses, dominate. The cascade of long NLMS and short RLS and the online stacking follow lossless coders (Sac;
MPEG-4 ALS, RLS-LMS mode); weighting, scale model and mixture are ours.

The mass of the PCM value v is C(v + 1) - C(v) with C(v) the cdf of the mixture at v - 1/2, C(-32768) = 0 and
C(32768) = 1: the end cells take the tails and the masses sum to one. A share of 1e-6 is uniform, so no mass is below
2^-36. For an even nu the cdf is algebraic: all is computed with + - * / sqrt and powers of two in a fixed order,
without fast-math and contraction, which IEEE 754 fixes to the bit on any processor (tried on x86-64 only; the logarithm
of a mass may differ).

Coders use `start`, `cdf` and `update` themselves. numba compiles them at first use in each process, in about seven
seconds; nothing is kept on disk.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from speechlvm.coding import PCM_OFFSET, PCM_VALUES
from speechlvm.modules.rls import RLS, aim, compiled, correct, dot, exp2, internal, log2, output, push, start_filters

# All settings were chosen on the training set of TIMIT's sample.
BANK = ((16, 0.98), (24, 0.99), (32, 0.985), (96, 0.99))
"""Order and forgetting factor of each RLS; orders are multiples of 4."""
NLMS_ORDER, NLMS_RATE = 128, 0.15
CASCADE = (24, 0.99)
COMBINERS = (0.985, 0.995, 0.999)
MAIN = 1
"""The combiner whose errors the scale follows."""
TRACKERS = (0.5, 0.2, 0.08, 0.03, 0.008)
SCALE_FORGETTING = 0.998
SHAPES = (4, 4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8)
MULTIPLES = (0.5, 0.7, 0.85, 1.0, 1.25, 3.0, 0.15, 0.7, 0.85, 1.0, 1.2, 1.5)
SHARE = 0.001
UNIFORM = 1e-6

_PREDICTIONS = len(BANK) + 2
_INPUTS = _PREDICTIONS + 2  # of the combiners: the last frame and a constant, too
_FEATURES = len(TRACKERS) + 3
_COMPONENTS = len(COMBINERS) * len(SHAPES)
_CONSTANT = 100.0
_INFORMATION = 2 * 8.0 / (8.0 + 3.0)  # Fisher information on log s of a Student-t with nu = 8
_LOG2E = 1.4426950408889634

# Places among the RLS filters; of numpy's type, because for an int numba would compile another version of a function.
_CASCADE = np.int64(len(BANK))
_COMBINER = np.int64(_CASCADE + 1)
_SCALE = np.int64(_COMBINER + len(COMBINERS))
_FILTERS = (
    *((order, forgetting, 1.0, 100.0) for order, forgetting in (*BANK, CASCADE)),
    *((_INPUTS, forgetting, 0.01, 1.0) for forgetting in COMBINERS),
    (_FEATURES, SCALE_FORGETTING, 1.0, 1.0),
)
"""Order, forgetting factor, initial variance of a weight and bound of the mean variance of each RLS filter."""
_ORDERS = sum(int(order) for order, *_ in _FILTERS)
_SQUARES = sum(int(order) ** 2 for order, *_ in _FILTERS)


class State(NamedTuple):
    """What is known before a frame; arrays are changed in place.

    Attributes:
        rls: all RLS filters.
        past: (128,) the last frames, newest first.
        nlms: (128,) weights of the NLMS filter.
        left: (24,) its last errors, newest first.
        energy: (1,) sum of squares of `past`.
        inputs: (8,) of the combiners: predictions, last frame, constant.
        features: (8,) of the scale model: log2 of trackers, spread and level, constant.
        trackers: (6,) running mean absolute errors, and level of the signal.
        centres: (C,) mu of the coming frame.
        scale: (1,) s of the coming frame.
        mu, inverse: (N,) centre and 1 / (scale sqrt(nu)) of each component.
        shape: (5, N) of each component: coefficients of the cdf, and inverse for s = 1.
        weights: (N,) of the mixture.
        low, high: (N,) scratch.
    """

    rls: RLS
    past: np.ndarray
    nlms: np.ndarray
    left: np.ndarray
    energy: np.ndarray
    inputs: np.ndarray
    features: np.ndarray
    trackers: np.ndarray
    centres: np.ndarray
    scale: np.ndarray
    mu: np.ndarray
    inverse: np.ndarray
    shape: np.ndarray
    weights: np.ndarray
    low: np.ndarray
    high: np.ndarray


def start() -> State:
    """The state before the first frame of an utterance."""
    zeros = np.zeros
    rls = start_filters(_FILTERS)
    *_, scale_model = np.split(rls.weights, rls.places[1:, 1])
    scale_model[: len(TRACKERS)], scale_model[-1] = 1.0 / len(TRACKERS), -0.4
    for first in rls.places[_COMBINER:_SCALE, 1]:
        rls.weights[first : first + _PREDICTIONS] = 1.0 / _PREDICTIONS
    half = np.array(SHAPES) // 2
    ratios = np.cumprod([1.0, 1 / 2, 3 / 4, 5 / 6])[:, None] * (np.arange(4)[:, None] < half)
    inverse = 1.0 / (np.array(MULTIPLES) * np.sqrt(SHAPES))
    state = State(
        rls=rls,
        past=zeros(NLMS_ORDER),
        nlms=zeros(NLMS_ORDER),
        left=zeros(CASCADE[0]),
        energy=zeros(1),
        inputs=zeros(_INPUTS),
        features=zeros(_FEATURES),
        trackers=np.full(len(TRACKERS) + 1, 20.0),
        centres=zeros(len(COMBINERS)),
        scale=zeros(1),
        mu=zeros(_COMPONENTS),
        inverse=zeros(_COMPONENTS),
        shape=np.tile(np.vstack([ratios, inverse]), len(COMBINERS)),
        weights=np.full(_COMPONENTS, 1.0 / _COMPONENTS),
        low=zeros(_COMPONENTS),
        high=zeros(_COMPONENTS),
    )
    _predict(state)
    return state


def pack(state: State) -> np.ndarray:
    """All numbers of a state but the places of its filters, one after another, as `unpack` finds them."""
    return np.concatenate([values.ravel() for values in (*state.rls[:-1], *state[1:])])


@internal
def _take(packed: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    place[0] += size
    return packed[place[0] - size : place[0]]


@compiled
def unpack(packed: np.ndarray, places: np.ndarray) -> State:
    """The state whose arrays are views of a contiguous vector that `pack` gave, or a longer one."""
    at = np.zeros(1, np.int64)
    rls = RLS(
        _take(packed, at, _SQUARES),
        _take(packed, at, _ORDERS),
        _take(packed, at, _ORDERS),
        _take(packed, at, _ORDERS),
        _take(packed, at, 4 * len(places)).reshape((len(places), 4)),
        places,
    )
    return State(
        rls,
        _take(packed, at, NLMS_ORDER),
        _take(packed, at, NLMS_ORDER),
        _take(packed, at, CASCADE[0]),
        _take(packed, at, 1),
        _take(packed, at, _INPUTS),
        _take(packed, at, _FEATURES),
        _take(packed, at, len(TRACKERS) + 1),
        _take(packed, at, len(COMBINERS)),
        _take(packed, at, 1),
        _take(packed, at, _COMPONENTS),
        _take(packed, at, _COMPONENTS),
        _take(packed, at, 5 * _COMPONENTS).reshape((5, _COMPONENTS)),
        _take(packed, at, _COMPONENTS),
        _take(packed, at, _COMPONENTS),
        _take(packed, at, _COMPONENTS),
    )


@compiled
def cdf(state: State, value: int) -> float:
    """Probability that the coming frame is below the PCM value -32768 ... 32768; 0 and 1 at the ends."""
    return _cdf(state, value, state.low)


@compiled
def update(state: State, value: int) -> float:
    """Append the PCM value of a frame to the past; returns its mass cdf(value + 1) - cdf(value)."""
    mass = _cdf(state, value + 1, state.high) - _cdf(state, value, state.low)
    _learn_mixture(state)
    _learn(state, float(value))
    _predict(state)
    return mass


class Adaptive:
    """Scores and samples whole utterances."""

    bound = "exact"
    coding = "linear"  # the PCM signal itself, whatever the coding of the other systems
    parameters = 0

    @classmethod
    def fit(cls, histogram: np.ndarray, coding: object) -> Adaptive:
        """Nothing is fitted."""
        return cls()

    def nats(self, pcm: np.ndarray) -> float:
        """Log-likelihood of int16 PCM (T,) in nats."""
        return math.fsum(np.log(_masses(start(), pcm.astype(np.int64))))

    def sample(self, uniform: np.ndarray, prefix: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """Draw frames by inversion of the cdf.

        Args:
            uniform: (T,) numbers in (0, 1), one for each frame.
            prefix: int16 PCM that comes before them.

        Returns:
            int16 PCM of prefix and drawn frames, and the log-likelihood of the latter in nats.
        """
        state, before = start(), np.zeros(0, np.int16) if prefix is None else prefix
        _masses(state, before.astype(np.int64))
        drawn, masses = _draw(state, uniform)
        return np.concatenate([before, drawn.astype(np.int16)]), math.fsum(np.log(masses))


@compiled
def _masses(state: State, pcm: np.ndarray) -> np.ndarray:
    masses = np.empty(len(pcm))
    for t in range(len(pcm)):
        masses[t] = update(state, pcm[t])
    return masses


@compiled
def _draw(state: State, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drawn, masses = np.empty(len(uniform), np.int64), np.empty(len(uniform))
    for t in range(len(uniform)):
        low, high = -PCM_OFFSET, PCM_OFFSET  # cdf(low) <= uniform < cdf(high)
        while high - low > 1:
            middle = (low + high) // 2
            if cdf(state, middle) <= uniform[t]:
                low = middle
            else:
                high = middle
        drawn[t] = low
        masses[t] = update(state, low)
    return drawn, masses


# --- Mixture ----------------------------------------------------------------------------------------------------------


@internal
def _cdf(state: State, value: int, each: np.ndarray) -> float:
    """The cdf at value - 1/2; twice that of each component, less 1, is written to `each`.

    With z = (x - mu) / (scale sqrt(nu)) and q = 1 / (1 + z^2), 2 F - 1 = z sqrt(q) (a_0 + a_1 q + ...) for even nu.
    """
    if value <= -PCM_OFFSET:
        each[:] = -1.0
        return 0.0
    if value >= PCM_OFFSET:
        each[:] = 1.0
        return 1.0
    edge, shape = value - 0.5, state.shape
    for n in range(_COMPONENTS):
        z = (edge - state.mu[n]) * state.inverse[n]
        q = 1.0 / (1.0 + z * z)
        each[n] = z * math.sqrt(q) * (shape[0, n] + q * (shape[1, n] + q * (shape[2, n] + q * shape[3, n])))
    mixed = 0.5 + 0.5 * dot(state.weights, 0, each, _COMPONENTS)
    return (1.0 - UNIFORM) * mixed + UNIFORM * ((value + PCM_OFFSET) / PCM_VALUES)


@internal
def _learn_mixture(state: State) -> None:
    """Fixed share: w <- (1 - a) w m / sum(w m) + a / N, with m the masses of the components."""
    total = 0.0
    for n in range(_COMPONENTS):
        # rounding leaves tiny negative masses far from the centre
        state.weights[n] *= max(state.high[n] - state.low[n], 0.0) + 1e-12
        total += state.weights[n]
    for n in range(_COMPONENTS):
        state.weights[n] = (1.0 - SHARE) * (state.weights[n] / total) + SHARE / _COMPONENTS


# --- Prediction -------------------------------------------------------------------------------------------------------


@compiled
def _predict(state: State) -> None:
    """Centres, scale and components of the coming frame."""
    rls, inputs, features, centres = state.rls, state.inputs, state.features, state.centres
    for i in range(len(BANK)):
        inputs[i] = output(rls, i, state.past)
    inputs[_CASCADE] = dot(state.nlms, 0, state.past, NLMS_ORDER)
    inputs[_CASCADE + 1] = inputs[_CASCADE] + output(rls, _CASCADE, state.left)
    inputs[_PREDICTIONS] = state.past[0]
    inputs[_PREDICTIONS + 1] = _CONSTANT
    for i in range(len(COMBINERS)):
        aim(rls, _COMBINER + i, inputs)
        centres[i] = output(rls, _COMBINER + i, inputs)

    spread = 0.0
    for i in range(len(BANK)):
        spread += abs(inputs[i] - centres[MAIN])
    for i in range(len(TRACKERS)):
        features[i] = log2(state.trackers[i] + 0.3)
    features[len(TRACKERS)] = log2(spread / len(BANK) + 0.3)
    features[len(TRACKERS) + 1] = log2(state.trackers[len(TRACKERS)] + 1.0)
    features[len(TRACKERS) + 2] = 1.0
    aim(rls, _SCALE, features)
    scale = exp2(min(max(output(rls, _SCALE, features), -3.0), 15.0))
    state.scale[0] = scale
    per_scale = 1.0 / (scale + 0.1)
    for i in range(len(COMBINERS)):
        for n in range(i * len(SHAPES), (i + 1) * len(SHAPES)):
            state.mu[n] = centres[i]
            state.inverse[n] = state.shape[4, n] * per_scale


@internal
def _learn(state: State, x: float) -> None:
    """Learn from the coming frame x, and let it be the last one."""
    rls, inputs, past, trackers, scale = state.rls, state.inputs, state.past, state.trackers, state.scale[0]
    error = x - state.centres[MAIN]
    z = error / scale
    score = (9.0 * z * z / (8.0 + z * z) - 1.0) * _LOG2E  # d log p / d log s, for nu = 8
    if scale > 0.5 or score > 0.0:  # in digital silence there is nothing to learn
        correct(rls, _SCALE, min(score / _INFORMATION, 4.0), _LOG2E * _LOG2E / _INFORMATION)
    for i in range(len(TRACKERS)):
        trackers[i] += TRACKERS[i] * (abs(error) - trackers[i])
    trackers[len(TRACKERS)] += 0.3 * (abs(x) - trackers[len(TRACKERS)])

    power = (scale + 0.3) * (scale + 0.3)
    for i in range(len(COMBINERS)):
        error = x - state.centres[i]
        correct(rls, _COMBINER + i, error, _variance(power, error))
    for i in range(len(BANK)):
        error = x - inputs[i]
        correct(rls, i, error, _variance(power, error))
    error = x - inputs[_CASCADE + 1]
    correct(rls, _CASCADE, error, _variance(power, error))

    error = x - inputs[_CASCADE]
    step = NLMS_RATE * error / (1.0 + state.energy[0])
    for i in range(NLMS_ORDER):
        state.nlms[i] += step * past[i]
    push(state.left, error)
    aim(rls, _CASCADE, state.left)
    state.energy[0] += x * x - past[NLMS_ORDER - 1] * past[NLMS_ORDER - 1]  # of integers, so exact
    push(past, x)
    for i in range(len(BANK)):
        aim(rls, i, past)


@internal
def _variance(power: float, error: float) -> float:
    return 0.85 * power + 0.15 * error * error
