"""Discretised logistic mixture against float64 autograd of its definition, and against its own samples."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from speechlvm.coding import CODINGS, build_coding
from speechlvm.distributions.dmol import (
    MAX_LOG_SCALE,
    MIN_LOG_SCALE,
    DiscretizedLogisticMixture,
    fit_mixture,
)


def reference(parameters, lower, upper):
    """The definition under autograd."""
    logits, means, log_scales = parameters.chunk(3, -1)
    scale = log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE).exp()
    a, b = (upper[:, None] - means) / scale, (lower[:, None] - means) / scale
    mass = F.logsigmoid(a) + F.logsigmoid(-b) + torch.log(-torch.expm1(-(upper - lower)[:, None] / scale))
    return torch.logsumexp(torch.log_softmax(logits, -1) + mass, -1)


def hard_cases(coding, components, frames=4000, seed=0):
    """Codes, among them the outermost ones, and components near them, far from them, narrow and wide."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand(frames, components, generator=generator)

    codes = torch.randint(coding.size, (frames, 1), generator=generator)
    codes[:50], codes[50:100] = 0, coding.size - 1
    log_scales = uniform(-16.0, 2.0)
    near = torch.from_numpy(coding.values)[codes] + log_scales.exp() * uniform(-3.0, 3.0)
    means = torch.where(uniform(0, 1) < 0.5, near, uniform(-2.0, 2.0))
    return codes, torch.cat([uniform(-3.0, 3.0), means, log_scales], -1)


@pytest.mark.parametrize("name", CODINGS)
def test_masses_of_all_codes_sum_to_one(name):
    coding = build_coding(name)
    distribution = DiscretizedLogisticMixture(coding.edges, 1)
    codes = torch.arange(coding.size).unsqueeze(-1)
    for log_scale in range(-16, 3, 2):
        for mean in (-3.0, -1.0, -0.6, -1e-4, 0.0, 0.3, 0.999, 1.5):
            parameters = torch.tensor([0.0, mean, log_scale]).expand(coding.size, -1)
            total = distribution.log_prob(parameters, codes).double().exp().sum()
            assert total == pytest.approx(1.0, abs=1e-5), (log_scale, mean)


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize("components", [1, 10])
def test_float32_agrees_with_float64(name, components):
    coding = build_coding(name)
    codes, parameters = hard_cases(coding, components)
    distribution = DiscretizedLogisticMixture(coding.edges, components)
    parameters.requires_grad_()
    log_prob = distribution.log_prob(parameters, codes)
    log_prob.sum().backward()

    exact = parameters.detach().double().requires_grad_()
    edges = torch.from_numpy(coding.edges).double()
    expected = reference(exact, edges[codes[:, 0]], edges[codes[:, 0] + 1])
    expected.sum().backward()
    assert ((log_prob.double() - expected).abs() <= 1e-6 * expected.abs().clamp(min=1)).all()

    logits, means, log_scales = parameters.grad.double().chunk(3, -1)
    exact_logits, exact_means, exact_log_scales = exact.grad.chunk(3, -1)
    inverse_scale = exact.detach().chunk(3, -1)[2].neg().exp()
    assert ((logits - exact_logits).abs() <= 1e-5).all()
    assert ((means - exact_means).abs() <= 1e-5 * torch.maximum(exact_means.abs(), inverse_scale)).all()
    assert ((log_scales - exact_log_scales).abs() <= 1e-5 * exact_log_scales.abs().clamp(min=1)).all()


def test_analytic_gradient_is_the_derivative():
    coding = build_coding("mulaw8")
    codes, parameters = hard_cases(coding, 3, frames=120)
    parameters = parameters.double()
    parameters[:, 6:].clamp_(min=-4.0)  # finite differences need some width
    distribution = DiscretizedLogisticMixture(coding.edges, 3).double()
    assert torch.autograd.gradcheck(lambda p: distribution.log_prob(p, codes), parameters.requires_grad_())


def test_far_tails_are_finite_and_exact():
    coding = build_coding("mulaw")
    distribution = DiscretizedLogisticMixture(coding.edges, 1)
    codes = torch.tensor([[0], [65535], [65535], [0], [32768]])
    parameters = torch.tensor(
        [[0.0, 1.0, -12.0], [0.0, -1.0, -12.0], [0.0, 1e4, -18.0], [0.0, 0.0, 8.0], [0.0, 1e4, 8.0]]
    ).requires_grad_()
    log_prob = distribution.log_prob(parameters, codes)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all() and torch.isfinite(parameters.grad).all()
    # -2 / e^-12 nats: a logistic's tail is exponential
    assert log_prob[0].item() == pytest.approx(-2 * np.exp(12.0), rel=1e-4)
    assert log_prob[2].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", CODINGS)
def test_gradients_are_hardly_ever_subnormal(name):
    # of a mean over a batch of 2^18 frames; products of subnormal numbers take some CPUs twenty times as long
    coding = build_coding(name)
    distribution = DiscretizedLogisticMixture(coding.edges, 10)
    codes, parameters = hard_cases(coding, 10)
    parameters.requires_grad_()
    (distribution.log_prob(parameters, codes).sum() / 2**18).backward()
    size = parameters.grad.abs()
    subnormal = (size > 0) & (size < torch.finfo(torch.float32).tiny)
    assert subnormal.float().mean() < 0.01


def test_log_scales_are_clamped_like_torch_clamp():
    coding = build_coding("mulaw")
    distribution = DiscretizedLogisticMixture(coding.edges, 1)
    codes = torch.full((4, 1), 40000)
    inside = torch.tensor([MIN_LOG_SCALE, MAX_LOG_SCALE, -30.0, 20.0])
    parameters = torch.stack([torch.zeros(4), torch.full((4,), -0.5), inside], -1).requires_grad_()
    log_prob = distribution.log_prob(parameters, codes)
    log_prob.sum().backward()
    assert log_prob[2] == log_prob[0] and log_prob[3] == log_prob[1]
    of_log_scales = parameters.grad[:, 2]
    assert (of_log_scales[:2] != 0).all() and (of_log_scales[2:] == 0).all()


def test_frames_do_not_depend_on_their_block_or_thread():
    coding = build_coding("linear")
    distribution = DiscretizedLogisticMixture(coding.edges, 10)
    codes, parameters = hard_cases(coding, 10, frames=7000)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 3):
            torch.set_num_threads(number)
            leaf = parameters.clone().requires_grad_()
            log_prob = distribution.log_prob(leaf.view(70, 100, 30), codes.view(70, 100, 1))
            weights = torch.linspace(-1, 2, 7000).view(70, 100)
            (log_prob * weights).sum().backward()
            results.append((log_prob.detach(), leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    with torch.inference_mode():
        assert torch.equal(distribution.log_prob(parameters, codes), results[0][0].flatten())
    last = parameters[-5:].clone().requires_grad_()
    (distribution.log_prob(last, codes[-5:]) * torch.linspace(-1, 2, 7000)[-5:]).sum().backward()
    torch.testing.assert_close(last.grad, results[0][1][-5:], rtol=1e-5, atol=0)


def test_nothing_is_derived_when_no_gradient_is_wanted():
    distribution = DiscretizedLogisticMixture(build_coding("mulaw8").edges, 2)
    parameters = torch.zeros(5, 6, requires_grad=True)
    with torch.no_grad():
        assert distribution.log_prob(parameters, torch.zeros(5, 1, dtype=torch.int64)).grad_fn is None


def test_double_keeps_the_float32_partition():
    coding = build_coding("mulaw-pcm")
    distribution = DiscretizedLogisticMixture(coding.edges).double()
    assert distribution.edges.dtype == torch.float64
    assert torch.equal(distribution.edges.float(), torch.from_numpy(coding.edges))
    codes = torch.arange(coding.size).unsqueeze(-1)
    parameters = torch.linspace(-2, 1, 30, dtype=torch.float64).expand(coding.size, -1)
    assert distribution.log_prob(parameters, codes).exp().sum() == pytest.approx(1.0, abs=1e-12)
    assert not distribution.state_dict()  # the coding defines the table


def test_sample_frequencies_are_the_masses():
    coding = build_coding("mulaw8")
    distribution = DiscretizedLogisticMixture(coding.edges, 2)
    parameters = torch.tensor([0.5, -0.5, -0.3, 0.9, -2.0, -2.5])
    draws = 200_000
    codes = distribution.draw(parameters.expand(draws, -1), torch.Generator().manual_seed(0))
    assert codes.shape == (draws, 1) and codes.dtype == torch.int64
    everything = torch.arange(256).unsqueeze(-1)
    expected = draws * distribution.log_prob(parameters.expand(256, -1), everything).exp()
    observed = torch.bincount(codes.flatten(), minlength=256)
    often = expected > 20
    chi_square = ((observed - expected)[often] ** 2 / expected[often]).sum()
    freedom = int(often.sum())
    assert abs(chi_square - freedom) < 4.5 * np.sqrt(2 * freedom)
    assert observed[~often].sum() < expected[~often].sum() + 5 * expected[~often].sum().sqrt() + 1


def test_mode_is_the_place_of_the_heaviest_component():
    coding = build_coding("linear")
    distribution = DiscretizedLogisticMixture(coding.edges, 3)
    parameters = torch.tensor([0.0, 2.0, 1.0, -0.5, 0.25, 0.5, -1.0, -2.0, -3.0])
    assert distribution.mode(parameters).tolist() == [32768 + 8192]


def test_a_place_on_an_edge_belongs_to_the_cell_above():
    coding = build_coding("linear")
    distribution = DiscretizedLogisticMixture(coding.edges, 1)
    for code in (1, 30_000, 65_535):
        assert distribution.mode(torch.tensor([0.0, float(coding.edges[code]), 0.0])).item() == code


def counted(coding, parameters, total):
    """Expected counts of all codes under a mixture."""
    distribution = DiscretizedLogisticMixture(coding.edges, len(parameters) // 3).double()
    codes = torch.arange(coding.size)
    return codes, total * distribution.log_prob(parameters.expand(coding.size, -1), codes.unsqueeze(-1)).exp()


def test_fit_recovers_a_mixture():
    coding = build_coding("mulaw8")
    truth = torch.tensor([0.3, -0.3, -0.4, 0.5, -2.5, -1.5], dtype=torch.float64)
    codes, counts = counted(coding, truth, 1e6)
    fit = fit_mixture(torch.from_numpy(coding.edges), codes, counts, 2)
    assert fit.converged
    order = [0, 1] if fit.parameters[2] < fit.parameters[3] else [1, 0]
    found = fit.parameters.view(3, 2)[:, order]
    assert found[0, 0] - found[0, 1] == pytest.approx(0.6, abs=1e-2)
    torch.testing.assert_close(found[1:], truth.view(3, 2)[1:], atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", ["mulaw", "linear"])
def test_initial_bias_is_close_to_the_entropy_and_its_components_differ(name):
    coding = build_coding(name)
    pcm = np.rint(np.random.default_rng(0).laplace(0, 300, 50_000)).clip(-32768, 32767).astype(np.int64)
    values, counts = np.unique(coding.codes[pcm + 32768].astype(np.int64), return_counts=True)
    distribution = DiscretizedLogisticMixture(coding.edges, 10)
    targets, weights = torch.from_numpy(values).unsqueeze(-1), torch.from_numpy(counts)
    bias = distribution.initial_bias(targets, weights)
    assert bias.shape == (30,) and torch.isfinite(bias).all()
    assert torch.equal(bias, distribution.initial_bias(targets, weights))
    nats = -(distribution.double().log_prob(bias.expand(len(values), -1), targets) * weights).sum() / weights.sum()
    if name == "linear":
        # the true distribution's entropy: ln(2 e b) nats at unit steps
        assert nats == pytest.approx(np.log(2 * np.e * 300), abs=0.02)
    else:
        assert nats < np.log(65536)
    places = bias.view(3, 10)[1:]
    assert torch.pdist((places / places.std(1, keepdim=True)).t()).min() > 1e-4


def test_initial_bias_does_not_depend_on_rounding():
    coding, random = build_coding("mulaw"), np.random.default_rng(0)
    pcm = np.rint(random.laplace(0, 300, 50_000)).clip(-32768, 32767).astype(np.int64)
    values, counts = np.unique(coding.codes[pcm + 32768].astype(np.int64), return_counts=True)
    distribution, targets = DiscretizedLogisticMixture(coding.edges, 10), torch.from_numpy(values).unsqueeze(-1)
    exact, rounded = (
        distribution.initial_bias(targets, torch.from_numpy(weights))
        for weights in (counts.astype(np.float64), counts * (1 + 1e-13 * random.standard_normal(len(counts))))
    )
    torch.testing.assert_close(rounded, exact, rtol=0, atol=1e-8)


def test_a_constant_training_set_can_be_fitted():
    distribution = DiscretizedLogisticMixture(build_coding("mulaw").edges, 4)
    bias = distribution.initial_bias(torch.tensor([[32768]]), torch.tensor([1000]))
    assert torch.isfinite(bias).all()
    assert len(bias.view(3, 4)[1].unique()) == 4  # equal components would stay equal for ever
    assert distribution.double().log_prob(bias, torch.tensor([32768])) > -1.0


def test_scales_of_a_fit_lie_where_they_have_gradients():
    # seven spikes, which components fit the better the narrower they are
    codes, counts = 32468 + 100 * torch.arange(7), torch.tensor([5, 9, 20, 30, 20, 9, 5])
    start = DiscretizedLogisticMixture(build_coding("linear").edges, 10).initial_bias(codes[:, None], counts)
    assert start[20:].min() >= -18.0 and start[20:].max() <= 8.0
