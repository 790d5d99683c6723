"""The adaptive reference: masses, causality, a second implementation, long and degenerate signals, samples."""

import math

import numpy as np
import pytest
from numba import njit
from scipy import stats

from speechlvm.models import adaptive
from speechlvm.models.adaptive import Adaptive, cdf, start, update

MODEL = Adaptive()
LIMIT = 32767


def speech(frames, seed=0):
    """Resonances that move, excited by noise that comes and goes."""
    generator = np.random.default_rng(seed)
    envelope = 5.0 + 300.0 * np.sin(np.arange(frames) / 900.0) ** 8
    x = np.zeros(frames + 2)
    for t in range(frames):
        angle = 0.3 + 0.2 * math.sin(t / 700.0)
        x[t + 2] = 1.9 * math.cos(angle) * x[t + 1] - 0.92 * x[t] + envelope[t] * generator.laplace()
    return np.rint(x[2:]).clip(-LIMIT - 1, LIMIT).astype(np.int16)


SIGNALS = {
    "speech": speech(400),
    "silence": np.zeros(400, np.int16),
    "constant": np.full(400, 17, np.int16),
    "full scale": np.full(400, LIMIT, np.int16),
    "least": np.full(400, -LIMIT - 1, np.int16),
    "alternating": np.resize([LIMIT, -LIMIT], 400).astype(np.int16),
    "after silence": np.concatenate([np.zeros(150, np.int16), speech(250)]),
    "noise": np.random.default_rng(1).integers(-LIMIT - 1, LIMIT + 1, 400).astype(np.int16),
}


def bits(pcm):
    return -MODEL.nats(pcm) / math.log(2) / len(pcm)


@njit
def edges_of(state):
    edges = np.empty(65537)
    for v in range(-32768, 32769):
        edges[v + 32768] = cdf(state, v)
    return edges


@pytest.mark.parametrize("name", SIGNALS)
def test_masses_are_positive_and_sum_to_one(name):
    state = start()
    for t, value in enumerate(SIGNALS[name].tolist()):
        if t in (0, 1, 399):
            edges = edges_of(state)
            masses = np.diff(edges)
            assert (edges[0], edges[-1]) == (0.0, 1.0)
            assert abs(masses.sum() - 1.0) < 1e-9 and masses.min() > 1e-12
            expected = masses[value + LIMIT + 1]
        mass = update(state, value)
        assert t not in (0, 1, 399) or mass == expected  # scoring and coding see the same


def test_a_frame_changes_nothing_before_the_next_one():
    pcm = speech(700).astype(np.int64)
    other = pcm.copy()
    other[500] += 40
    a, b = (adaptive._masses(start(), x) for x in (pcm, other))
    np.testing.assert_array_equal(a[:500], b[:500])
    assert (a[501:] != b[501:]).mean() > 0.9
    state = start()  # the distribution of a frame is there before the frame
    for value in pcm[:500]:
        update(state, value)
    for x, mass in ((pcm, a[500]), (other, b[500])):
        assert cdf(state, x[500] + 1) - cdf(state, x[500]) == mass


def test_an_utterance_scores_the_same_whatever_was_scored_before():
    first, second = speech(900), speech(800, seed=1)
    alone = MODEL.nats(second)
    MODEL.nats(first)
    assert Adaptive().nats(second) == MODEL.nats(second) == alone


class Plain:
    """The same in textbook form: P itself, numpy's and scipy's functions, no order of operations in mind."""

    class RLS:
        def __init__(self, weights, forgetting, variance, limit):
            self.w, self.forgetting = np.array(weights, float), forgetting
            self.P = variance * np.eye(len(weights))
            self.growth, self.limit = 1.0, limit

        def predict(self, h):
            self.h = h.copy()
            return self.w @ h

        def correct(self, error, variance):
            k = self.P @ self.h
            denominator = self.forgetting * variance + self.h @ k
            self.w = self.w + k * error / denominator
            trace = np.trace(self.P)
            self.P = (self.P - np.outer(k, k) / denominator) / self.forgetting
            self.growth /= self.forgetting
            if self.growth > 2.0:
                # the bound is on P without the growth since the last time and the latest correction
                self.P *= min(1.0, self.limit * len(k) * self.forgetting / trace)
                self.growth = 1.0

    def __init__(self):
        self.past, self.left, self.nlms = np.zeros(128), np.zeros(24), np.zeros(128)
        self.bank = [self.RLS(np.zeros(n), f, 1, 100) for n, f in adaptive.BANK]
        self.cascade = self.RLS(np.zeros(24), 0.99, 1, 100)
        self.combiners = [self.RLS([1 / 6] * 6 + [0, 0], f, 0.01, 1) for f in adaptive.COMBINERS]
        self.scale_model = self.RLS([0.2] * 5 + [0, 0, -0.4], adaptive.SCALE_FORGETTING, 1, 1)
        self.trackers = np.full(6, 20.0)
        self.nus, self.multiples = np.tile([adaptive.SHAPES, adaptive.MULTIPLES], len(self.combiners))
        self.weights = np.full(36, 1 / 36)

    def mass(self, x):
        """Of the frame x, which is then learned from."""
        inputs = [rls.predict(self.past[: len(rls.w)]) for rls in self.bank]
        inputs.append(self.nlms @ self.past)
        inputs += [inputs[-1] + self.cascade.predict(self.left), self.past[0], 100.0]
        inputs = np.array(inputs)
        centres = np.array([rls.predict(inputs) for rls in self.combiners])
        spread = np.abs(inputs[:4] - centres[adaptive.MAIN]).mean()
        features = np.log2([*(self.trackers[:5] + 0.3), spread + 0.3, self.trackers[5] + 1.0, 2.0])
        s = 2.0 ** np.clip(self.scale_model.predict(features), -3.0, 15.0)
        scales = self.multiples * (s + 0.1)
        high, low = (stats.t.cdf((x + side - np.repeat(centres, 12)) / scales, self.nus) for side in (0.5, -0.5))
        high, low = (1.0 if x == LIMIT else high), (0.0 if x == -LIMIT - 1 else low)
        mass = (1 - 1e-6) * self.weights @ (high - low) + 1e-6 / 65536
        posterior = self.weights * (2 * np.maximum(high - low, 0) + 1e-12)
        self.weights = 0.999 * posterior / posterior.sum() + 0.001 / 36

        error = x - centres[adaptive.MAIN]
        z = error / s
        score = 9 * z**2 / (8 + z**2) - 1
        if s > 0.5 or score > 0:
            self.scale_model.correct(min(score * 11 / 16 / math.log(2), 4.0), 11 / 16 / math.log(2) ** 2)
        self.trackers[:5] += np.array(adaptive.TRACKERS) * (abs(error) - self.trackers[:5])
        self.trackers[5] += 0.3 * (abs(x) - self.trackers[5])
        learners = [*self.bank, self.cascade, *self.combiners]
        for rls, prediction in zip(learners, [*inputs[:4], inputs[5], *centres], strict=True):
            rls.correct(x - prediction, (0.85 * (s + 0.3) ** 2 + 0.15 * (x - prediction) ** 2))
        self.nlms = self.nlms + 0.15 * (x - inputs[4]) * self.past / (1 + self.past @ self.past)
        self.left = np.concatenate([[x - inputs[4]], self.left[:-1]])
        self.past = np.concatenate([[x], self.past[:-1]])
        return mass


@pytest.mark.parametrize("name", ["speech", "full scale", "noise", "after silence"])
def test_a_second_implementation_agrees(name):
    pcm = SIGNALS[name].astype(np.int64)
    plain = Plain()
    expected = np.array([plain.mass(float(x)) for x in pcm])
    np.testing.assert_allclose(np.log(adaptive._masses(start(), pcm)), np.log(expected), atol=2e-3)
    assert MODEL.nats(SIGNALS[name]) == pytest.approx(np.log(expected).sum(), rel=1e-5)


def test_noise_costs_its_entropy():
    generator = np.random.default_rng(0)
    white = 100.0 * generator.standard_normal(20_000)
    entropy = math.log2(100.0 * math.sqrt(2 * math.pi * math.e))
    assert entropy < bits(np.rint(white).astype(np.int16)) < entropy + 0.1
    coloured = np.zeros(20_002)
    for t in range(20_000):
        coloured[t + 2] = 1.8 * coloured[t + 1] - 0.9 * coloured[t] + white[t]
    assert entropy < bits(np.rint(coloured[2:]).astype(np.int16)) < entropy + 0.13


def test_what_excites_nothing_does_no_harm():
    """Silence, constants and tones leave most weights undetermined for as long as they last."""
    noise = np.rint(100.0 * np.random.default_rng(0).standard_normal(4000)).astype(np.int16)
    tone = np.rint(20_000 * np.sin(np.arange(30_000) * 0.3)).astype(np.int16)
    alone = MODEL.nats(noise)
    for quiet in (np.zeros(30_000, np.int16), np.full(30_000, LIMIT, np.int16), tone):
        assert bits(quiet) < 1.5
        whole = MODEL.nats(np.concatenate([quiet, noise]))
        assert MODEL.nats(quiet) + alone - whole < 0.25 * len(noise)  # the change itself has its price
    assert bits(np.zeros(30_000, np.int16)) < 0.01
    square = np.resize(np.repeat([LIMIT, -LIMIT - 1], 37), 10_000).astype(np.int16)
    assert bits(square) < 3


def test_samples_score_what_they_were_drawn_with():
    uniform = np.random.default_rng(0).random(600)
    drawn, nats = MODEL.sample(uniform)
    assert drawn.dtype == np.int16 and len(np.unique(drawn)) > 50
    assert MODEL.nats(drawn) == nats
    prefix = speech(500)
    whole, nats = MODEL.sample(uniform, prefix)
    np.testing.assert_array_equal(whole[:500], prefix)
    assert MODEL.nats(whole) - MODEL.nats(prefix) == pytest.approx(nats, abs=1e-8)
    state = start()
    for value, u in zip(drawn[:50].tolist(), uniform, strict=False):
        assert cdf(state, value) <= u < cdf(state, value + 1)
        update(state, value)
