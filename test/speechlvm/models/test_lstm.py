"""LSTM: one set of weights scores, continues and samples."""

import pytest
import torch
from pydantic import ValidationError

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.modules.frames import stack_frames
from speechlvm.observation import AudioObservation, Statistics

OBSERVATION = AudioObservation("mulaw8", Statistics(0.0, 0.1))
CODING = OBSERVATION.tables
VALUES = torch.from_numpy(CODING.values)


def make_lstm(stack, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    distribution = build_distribution("dmol", {"components": 2}, OBSERVATION)
    model = build_model("lstm", {"stack": stack, "hidden": 8, **settings}, 1, distribution)
    with torch.no_grad():
        model.start_stack.normal_()
        model.head.weight.mul_(3)
        model.head.bias.copy_(torch.tensor([0.0, 0.0, -0.3, 0.4, -1.0, -2.0]).repeat(stack))
    return model.to(dtype)


def batch(frames, lengths=None):
    codes = torch.randint(256, (3, frames, 1), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([frames] * 3 if lengths is None else lengths)
    mask = torch.arange(frames)[None, :, None] < lengths[:, None, None]
    return VALUES[codes].double() * mask, codes * mask, lengths


def inputs_of(codes):
    return VALUES[codes]


@pytest.mark.parametrize(("stack", "layers"), [(1, 1), (4, 2), (5, 3)])
def test_forward_is_the_repeated_step(stack, layers):
    model = make_lstm(stack, layers=layers)
    inputs, target, lengths = batch(20)
    bound, _ = model(inputs, target, lengths)
    stacks = stack_frames(inputs, stack)
    state = model.initial_state(3)
    previous, steps = state["stack"], []
    for step in range(20 // stack):
        parameters, state = model.predict(previous.unsqueeze(1), state)
        steps.append(model.distribution.log_prob(parameters, target[:, step * stack : (step + 1) * stack]))
        previous = stacks[:, step]
    torch.testing.assert_close(torch.cat(steps, 1), bound.log_likelihood.values, atol=1e-10, rtol=0)


def test_the_first_stack_is_paid_for_and_learned():
    model = make_lstm(4)
    inputs, target, lengths = batch(4)
    values = model(inputs, target, lengths)[0].log_likelihood.values
    assert (values < 0).all()
    values.sum().backward()
    assert model.start_stack.grad.abs().min() > 0


def test_sampling_goes_on_where_it_or_a_prefix_stopped(monkeypatch):
    monkeypatch.setattr("speechlvm.models.ancestral.SAMPLED_BLOCK_FRAMES", 8)
    model = make_lstm(4)
    noise = Noise([("a",), ("b",)], dtype=torch.float64)
    whole = model.sample(36, noise, inputs_of)
    first = model.sample(16, noise, inputs_of)
    second = model.sample(20, noise, inputs_of, state=first.state)
    assert torch.equal(torch.cat([first.target, second.target], 1), whole.target)
    _, state = model(inputs_of(first.target).double(), first.target, torch.tensor([16, 16]))
    assert torch.equal(model.sample(20, noise, inputs_of, state=state).target, second.target)


def test_one_step_of_training_lowers_the_loss_in_bfloat16_too():
    for bfloat16 in (False, True):
        model = make_lstm(4, torch.float32)
        inputs, target, lengths = batch(16)
        optimiser = torch.optim.Adam(model.parameters(), 1e-3)
        losses = []
        for _ in range(2):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                values = model.score(inputs.float(), target, lengths).log_likelihood.values
            assert values.dtype == torch.float32
            losses.append(-values.sum())
            losses[-1].backward()
            assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
            optimiser.step()
        assert losses[1] < losses[0]


@pytest.mark.parametrize("settings", [{}, {"stack": 0}, {"stack": 1, "layers": 10**9}, {"stack": 4.0}])
def test_impossible_sizes_are_refused(settings):
    with pytest.raises(ValidationError):
        build_model("lstm", settings, 1, build_distribution("dmol", {}, OBSERVATION))
