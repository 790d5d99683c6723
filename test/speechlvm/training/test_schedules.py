import math

import pytest

from speechlvm.experiment.config import AuxiliaryWeight, KLWeight, LearningRate, TrainingSettings
from speechlvm.training.schedules import auxiliary_weights, free_nats, kl_weight, learning_rate, settled


def test_constant_with_warmup():
    settings = LearningRate(peak=0.1, warmup_steps=4)
    rates = [learning_rate(settings, step, 0.0) for step in range(6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_cosine_over_the_run_or_over_steps():
    over_run = LearningRate(peak=0.1, schedule="cosine", final=0.02)
    assert [learning_rate(over_run, 5, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 0.06, 0.02])
    over_steps = LearningRate(peak=0.1, schedule="cosine", decay_steps=10)
    assert [learning_rate(over_steps, s, 0.9) for s in (0, 5, 10, 20)] == pytest.approx([0.1, 0.05, 0.0, 0.0])


def test_constant_with_a_final_decay():
    settings = LearningRate(peak=0.1, schedule="constant-decay", final=0.02, decay_share=0.25)
    rates = [learning_rate(settings, 5, p) for p in (0.0, 0.7, 0.75, 0.875, 1.0)]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.06, 0.02])


def test_exponential():
    settings = LearningRate(peak=0.1, schedule="exponential", decay_steps=1000, decay_rate=0.98, final=0.05)
    assert learning_rate(settings, 2000, 0.0) == pytest.approx(0.1 * 0.98**2)
    assert learning_rate(settings, 10**6, 0.0) == 0.05


def test_kl_weights():
    assert kl_weight(KLWeight(), 0) == 1.0
    linear = KLWeight(schedule="linear", initial=0.2, steps=10)
    assert [kl_weight(linear, s) for s in (0, 5, 10, 99)] == pytest.approx([0.2, 0.6, 1.0, 1.0])
    cosine = KLWeight(schedule="cosine", steps=10)
    assert kl_weight(cosine, 5) == pytest.approx(1 - math.cos(math.pi / 4))
    assert kl_weight(cosine, 10) == pytest.approx(1.0)
    raised = KLWeight(schedule="raised-cosine", steps=8)
    expected = [0.0, (1 - math.sqrt(0.5)) / 2, 0.5, 1.0, 1.0]
    assert [kl_weight(raised, s) for s in (0, 2, 4, 8, 99)] == pytest.approx(expected)


def test_free_nats_are_constant_or_fall_in_the_second_half():
    rate = LearningRate(peak=0.1)
    assert free_nats(TrainingSettings(learning_rate=rate, free_nats=3.0), 10**6) == 3.0
    falling = TrainingSettings(learning_rate=rate, free_nats=4.0, free_nats_steps=16)
    expected = [4.0, 4.0, 2 + math.sqrt(2), 2.0, 0.0, 0.0]
    assert [free_nats(falling, s) for s in (0, 8, 10, 12, 16, 99)] == pytest.approx(expected)


def test_auxiliary_weights():
    falling = AuxiliaryWeight(initial=0.5, final=0.1, steps=10)
    rising = AuxiliaryWeight(initial=0.0, final=2.0, steps=4)
    found = [auxiliary_weights({"a": falling, "b": rising}, step) for step in (0, 2, 10, 99)]
    assert [weights["a"] for weights in found] == pytest.approx([0.5, 0.42, 0.1, 0.1])
    assert [weights["b"] for weights in found] == pytest.approx([0.0, 1.0, 2.0, 2.0])
    assert auxiliary_weights({}, 5) == {}


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 4),  # the warm-up of the learning rate
        ({"kl_weight": KLWeight(schedule="linear", steps=10)}, 10),
        ({"free_nats": 2.0, "free_nats_steps": 30}, 30),
        ({"auxiliary": {"a": AuxiliaryWeight(initial=0.0, final=1.0, steps=20)}}, 20),
    ],
)
def test_patience_begins_when_the_objective_stays_what_it_is(settings, step):
    training = TrainingSettings(learning_rate=LearningRate(peak=0.1, warmup_steps=4), **settings)
    assert [settled(training, at) for at in (0, step - 1, step, 10**6)] == [False, False, True, True]
