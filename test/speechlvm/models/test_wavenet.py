import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models.wavenet import Config, Stepper, WaveNet


class Normal(Distribution):
    """Independent normal distributions of E numbers, so that these tests need no other part."""

    continuous = True

    def __init__(self, event_size=1):
        super().__init__()
        self.event_size = self.noise_size = event_size
        self.parameter_size = 2 * event_size

    def log_prob(self, parameters, target):
        mean, log_scale = parameters.chunk(2, dim=-1)
        log_scale = log_scale.tanh()
        return (-0.5 * ((target - mean) / log_scale.exp()).square() - log_scale - 0.9189385332046727).sum(-1)

    def sample(self, parameters, noise, temperature=1.0):
        mean, log_scale = parameters.chunk(2, dim=-1)
        return mean + log_scale.tanh().exp() * torch.special.ndtri(noise)

    def mode(self, parameters):
        return parameters.chunk(2, dim=-1)[0]

    def initial_bias(self, targets, weights):
        return torch.zeros(self.parameter_size)


def make_wavenet(stack=1, channels=1, dtype=torch.float64, seed=0, **sizes):
    """A tiny model whose weights have moved away from their start: dilations 1, 2, 4 twice, 16 steps in view."""
    torch.manual_seed(seed)
    config = Config(stack=stack, **{"channels": 6, "layers_per_block": 3, "blocks": 2, **sizes})
    model = WaveNet(config, channels, Normal(channels)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def make_batch(model, lengths, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), model.channels, generator=generator, dtype=dtype)
    lengths = torch.tensor(lengths)
    return x * (torch.arange(x.shape[1])[None, :, None] < lengths[:, None, None]), lengths


def reference_log_likelihood(model, x):
    """The network as drawn in the paper, with torch's convolutions over (B, C, T) padded at the left."""
    batch, frames, _ = x.shape
    steps = x.reshape(batch, frames // model.stack, -1).transpose(1, 2)
    shifted = functional.pad(steps, (1, 0))[:, :, :-1]
    kernel = model.first.weight.unflatten(1, (2, -1)).transpose(1, 2)
    h = functional.conv1d(functional.pad(shifted, (1, 0)), kernel, model.first.bias)
    skip = 0
    for layer in model.layers:
        kernel = torch.stack([layer.past.t(), layer.present.t()], dim=-1)
        padded = functional.pad(h, (layer.dilation, 0))
        filters, gate = functional.conv1d(padded, kernel, layer.bias, dilation=layer.dilation).chunk(2, dim=1)
        z = torch.tanh(filters) * torch.sigmoid(gate)
        skip = skip + functional.conv1d(z, layer.skip.t()[..., None])
        if layer.residual is not None:
            h = h + functional.conv1d(z, layer.residual.t()[..., None])
    out = (skip + model.skip_bias[:, None]) / len(model.layers) ** 0.5
    out = functional.conv1d(out.relu(), model.hidden.weight[..., None], model.hidden.bias)
    out = functional.conv1d(out.relu(), model.head.weight[..., None], model.head.bias)
    parameters = out.transpose(1, 2).reshape(batch, frames, -1)
    return model.distribution.log_prob(parameters, x)


def log_likelihood(model, x, lengths, state=None):
    bound, state = model(x, x, lengths, state=state)
    return bound.log_likelihood.values, state


@pytest.mark.parametrize(("stack", "channels"), [(1, 1), (4, 1), (1, 3)])
def test_score_and_gradients_are_those_of_the_convolutional_network(stack, channels):
    model = make_wavenet(stack, channels)
    x, lengths = make_batch(model, [40, 40])
    results = []
    for values in (log_likelihood(model, x, lengths)[0], reference_log_likelihood(model, x)):
        results.append([values, *torch.autograd.grad(values.square().sum(), list(model.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stack", [1, 3])
def test_a_step_depends_on_exactly_its_receptive_field(stack):
    model = make_wavenet(stack)
    assert model.receptive_field == 2 * 7 + 2
    step = 20
    x, lengths = make_batch(model, [25 * stack])
    inputs = x.clone().requires_grad_()
    bound, _ = model(inputs, x, lengths)
    values = bound.log_likelihood.values[0, step * stack : (step + 1) * stack]
    gradient = torch.autograd.grad(values.sum(), inputs)[0].reshape(25, stack)
    seen = gradient.ne(0).all(dim=1)
    assert seen.tolist() == [step - model.receptive_field <= other < step for other in range(25)]
    assert torch.equal(seen, gradient.ne(0).any(dim=1))


def test_receptive_field_of_source_a():
    assert make_wavenet(channels=1, layers_per_block=10, blocks=5).receptive_field == 5117


@pytest.mark.parametrize("stack", [1, 3])
def test_steps_are_forward(stack):
    model = make_wavenet(stack)
    x, lengths = make_batch(model, [60 * stack] * 3)
    _, state = log_likelihood(model, x[:, : 21 * stack], lengths)
    rest = x[:, 21 * stack :]
    expected, expected_state = log_likelihood(model, rest, lengths, state)
    stepper, values = Stepper(model, state), []
    for frames in rest.split(stack, dim=1):
        values.append(model.distribution.log_prob(stepper.parameters(), frames))
        stepper.push(frames.flatten(1))
    torch.testing.assert_close(torch.cat(values, 1), expected, rtol=0, atol=1e-10)
    stepped = stepper.state()
    assert {*stepped, "frames"} == expected_state.keys()
    for name in stepped:
        torch.testing.assert_close(stepped[name], expected_state[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("stack", [1, 4])
def test_samples_are_scored_as_they_were_drawn(monkeypatch, stack, dtype, tolerance):
    monkeypatch.setattr("speechlvm.models.wavenet._SAMPLED_BLOCK_STEPS", 7)
    model = make_wavenet(stack, dtype=dtype)
    prefix, lengths = make_batch(model, [5 * stack] * 2, dtype)
    _, state = log_likelihood(model, prefix, lengths)
    noise = Noise([(1, "a"), (1, "b")], dtype=dtype)
    frames = 16 * stack
    samples = model.sample(frames, noise, lambda target: target, state)
    assert samples.target.shape == (2, frames, 1) and samples.log_likelihood.shape == (2, frames)
    values, end = log_likelihood(model, samples.target, lengths.new_full((2,), frames), state)
    torch.testing.assert_close(samples.log_likelihood.sum(1), values.sum(1), rtol=tolerance, atol=0)
    assert samples.state["frames"].tolist() == [21 * stack] * 2
    for name in end:
        torch.testing.assert_close(samples.state[name], end[name], rtol=0, atol=tolerance)


def test_initial_state_is_no_state():
    model = make_wavenet(2)
    x, lengths = make_batch(model, [30, 30])
    with_state, _ = log_likelihood(model, x, lengths, model.initial_state(2))
    torch.testing.assert_close(with_state, log_likelihood(model, x, lengths)[0], rtol=0, atol=1e-12)
    assert all(value.shape[0] == 3 for value in model.initial_state(3).values())  # batch first, as every state


def test_a_state_in_the_middle_of_a_step_is_refused():
    model = make_wavenet(4)
    x, lengths = make_batch(model, [10])
    _, state = log_likelihood(model, x, lengths)
    with pytest.raises(ValueError, match="10 frames"):
        log_likelihood(model, x, lengths, state)
    with pytest.raises(ValueError, match="10 frames"):
        model.sample(4, Noise([(0,)], dtype=torch.float64), lambda target: target, state)


def test_bfloat16_is_close_to_float32():
    model = make_wavenet(dtype=torch.float32, channels=1)
    x, lengths = make_batch(model, [300, 300], torch.float32)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values, _ = log_likelihood(model, x, lengths)
        assert values.dtype == torch.float32
        gradients = torch.autograd.grad(values.mean(), list(model.parameters()))
        results.append((values, torch.cat([gradient.flatten() for gradient in gradients])))
    (values, gradient), (half_values, half_gradient) = results
    assert 0 < (values - half_values).abs().mean() < 0.01
    assert (values - half_values).mean().abs() < 0.002
    assert (gradient - half_gradient).norm() < 0.03 * gradient.norm()


def test_output_starts_at_the_bias_of_the_marginal():
    model = make_wavenet(3)
    model.initialise_output(torch.tensor([0.3, -0.2]), gain=0.0)
    x, lengths = make_batch(model, [30])
    values, _ = log_likelihood(model, x, lengths)
    expected = model.distribution.log_prob(torch.tensor([0.3, -0.2], dtype=torch.float64).expand(1, 30, 2), x)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"stack": 0},
        {"stack": 10**9},
        {"channels": 0},
        {"channels": 10**6},
        {"layers_per_block": 0},
        {"layers_per_block": 40},
        {"blocks": 0},
        {"blocks": 10**9},
        {"channels": 96.0},
        {"chanels": 96},
        {"channels": 4096, "blocks": 50, "layers_per_block": 14},
    ],
)
def test_impossible_sizes_are_refused_before_allocation(settings):
    with pytest.raises(ValidationError):
        Config(**settings)
