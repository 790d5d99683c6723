"""Discretised mixture of logistics over the cells of a coding (Salimans et al. 2017; source A, 2.7), exact in float32.

With a = (upper - mean) / scale, b = (lower - mean) / scale and d = (upper - lower) / scale, the mass of a cell is

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-d))

where the left side cancels for cells much narrower than the scale and the right side never does, provided that d is
computed from the width of the cell and not as a - b. With it come the derivatives

    d log m / d mean      = (sigmoid(b) - sigmoid(-a)) / scale
    d log m / d log scale = b sigmoid(b) - a sigmoid(-a) - d / (exp(d) - 1)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from speechlvm.distributions.base import Distribution, unit_of_mean

_T = TypeVar("_T")

MIN_LOG_SCALE = -18.0  # the narrowest cell of all codings is 2.75e-6 = e^-12.8 wide
MAX_LOG_SCALE = 8.0

# Components times frames per block. On a CPU, the dozen temporaries of a block stay in the cache, and blocks run in
# parallel, one per thread: torch does not split operations on fewer than 32768 elements, and its threads would wait for
# each other after each of the forty operations.
_CPU_BLOCK = 30720
_ACCELERATOR_BLOCK = 1 << 24

# Below this width in units of the scale, 1 - exp(-d) is summed as a series, to 5e-8 relative.
_SERIES_BELOW = 0.05

# After about 50 iterations, components turn to single codes, and which ones depends on rounding: results of trained
# networks would differ from processor to processor.
_INITIAL_ITERATIONS = 30

# exp of anything smaller adds nothing to a sum with a term of size one, not even in float64. Its products with the
# masses of cells and with the gradient of a mean over frames are still far from subnormal: on some CPUs, products of
# matrices with subnormal numbers are twenty times slower.
_SMALLEST_EXPONENT = -60.0


def _one_minus_exp(negative: Tensor) -> Tensor:
    """1 - exp(x) for x <= 0 to float32 accuracy or better (torch.expm1 takes four times as long on a CPU)."""
    if negative.dtype != torch.float32:
        return torch.expm1(negative).neg_()
    one = torch.ones((), dtype=negative.dtype, device=negative.device)
    series = torch.add(one, negative, alpha=0.25)  # 1 - exp(x) = -x (1 + x/2 (1 + x/3 (1 + x/4 ...)))
    series = torch.addcmul(one, negative, series, value=1 / 3)
    series = torch.addcmul(one, negative, series, value=1 / 2)
    series.mul_(negative).neg_()
    return torch.where(
        negative > -_SERIES_BELOW, series, negative.clamp(min=_SMALLEST_EXPONENT).exp_().neg_().add_(1.0)
    )


@torch.no_grad()
def _block(
    parameters: Tensor, lower: Tensor, upper: Tensor, width: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of a block of frames and, if wanted, their derivatives.

    Args:
        parameters: (n, 3K).
        lower, upper, width: (n,) cells of the targets.
        wanted: whether to compute the derivatives.

    Returns:
        (n,) and (3K, n).
    """
    # components first, so that every operation runs along contiguous frames
    logits, means, raw_log_scales = parameters.t().contiguous().view(3, -1, len(lower)).unbind(0)
    log_scales = raw_log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)
    inverse = log_scales.neg().exp_()
    minus_a = (means - upper).mul_(inverse)
    b = (lower - means).mul_(inverse)
    minus_d = width.neg() * inverse
    one_minus_exp = _one_minus_exp(minus_d)
    tail_a, tail_b = torch.sigmoid(minus_a), torch.sigmoid(b)  # masses above and below the cell

    # log sigmoid(a) = min(a, 0) + log max(tail, 1 - tail), likewise for -b: one logarithm serves the whole mixture
    mass = torch.maximum(tail_a, 1.0 - tail_a)
    mass.mul_(torch.maximum(tail_b, 1.0 - tail_b)).mul_(one_minus_exp)
    exponent = logits - minus_a.clamp(min=0.0)
    exponent.sub_(b.clamp(min=0.0))
    largest = exponent.amax(0)
    joint = exponent.sub_(largest).clamp_(min=_SMALLEST_EXPONENT).exp_().mul_(mass)
    total = joint.sum(0)
    largest_logit = logits.amax(0)
    weights = (logits - largest_logit).exp_()
    norm = weights.sum(0)
    # far from all means the two maxima are of equal size: subtracting them first loses no digits
    log_prob = (total / norm).log_().add_(largest - largest_logit)
    if not wanted:
        return log_prob, None

    derivatives = parameters.new_empty(parameters.shape[::-1])
    of_logits, of_means, of_log_scales = derivatives.view(3, -1, len(lower)).unbind(0)
    responsibility = joint.mul_(total.reciprocal_())
    torch.sub(responsibility, weights.mul_(norm.reciprocal_()), out=of_logits)
    torch.sub(tail_b, tail_a, out=of_means)
    of_means.mul_(inverse).mul_(responsibility)
    # d / (exp(d) - 1) = d / (1 - exp(-d)) - d
    torch.div(minus_d, one_minus_exp, out=of_log_scales)
    of_log_scales.sub_(minus_d)
    of_log_scales.addcmul_(minus_a, tail_a).addcmul_(b, tail_b).mul_(responsibility)
    of_log_scales.masked_fill_(raw_log_scales != log_scales, 0.0)
    return log_prob, derivatives


def _in_blocks(work: Callable[[slice], _T], frames: int, components: int, device: torch.device) -> list[_T]:
    """Results of work(block of frames), in order."""
    size = max(1, (_CPU_BLOCK if device.type == "cpu" else _ACCELERATOR_BLOCK) // components)
    blocks = [slice(start, min(start + size, frames)) for start in range(0, max(frames, 1), size)]
    threads = min(torch.get_num_threads(), len(blocks))
    if device.type != "cpu" or threads < 2:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))


class _LogProb(torch.autograd.Function):
    """log_prob (N,) of parameters (N, 3K); computes the derivatives as well, while a block is in the cache."""

    @staticmethod
    def forward(ctx, parameters: Tensor, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[0]

        def score(block: slice) -> tuple[Tensor, Tensor | None]:
            return _block(parameters[block], lower[block], upper[block], width[block], wanted)

        log_probs, derivatives = zip(*_in_blocks(score, *_sizes(parameters)), strict=True)
        if wanted:
            ctx.save_for_backward(*derivatives)
        return torch.cat(log_probs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        derivatives = ctx.saved_tensors
        result = grad_output.new_empty(len(grad_output), len(derivatives[0]))
        frames = derivatives[0].shape[1]

        def scale(block: slice) -> None:
            with torch.no_grad():
                result[block] = (derivatives[block.start // frames] * grad_output[block]).t()

        _in_blocks(scale, *_sizes(result))
        return result, None, None, None


def log_masses(parameters: Tensor, lower: Tensor, upper: Tensor, width: Tensor) -> Tensor:
    """Log-masses (N,) in nats of cells (N,) under mixtures of logistics (N, 3K); `width` is upper - lower."""
    return _LogProb.apply(parameters, lower, upper, width)


def _sizes(parameters: Tensor) -> tuple[int, int, torch.device]:
    frames, size = parameters.shape
    return frames, size // 3, parameters.device


class DiscretizedLogisticMixture(Distribution):
    """Mixture of logistics integrated over the cells of a coding.

    Parameters (..., 3K): K logits, K means, K log-scales, the last clamped to [MIN_LOG_SCALE, MAX_LOG_SCALE].
    Targets (..., 1): int64 codes. One sample takes two uniform numbers: component, value.

    Args:
        edges: (codes + 1,) float32, strictly increasing; code k has the cell [edges[k], edges[k + 1]).
        components: K.
    """

    event_size = 1
    noise_size = 2
    continuous = False

    def __init__(self, edges: np.ndarray | Tensor, components: int = 10) -> None:
        super().__init__()
        self.components = components
        self.parameter_size = 3 * components
        # not persistent: defined by the coding, whose name is in checkpoints
        self.register_buffer("edges", torch.as_tensor(edges, dtype=torch.float32).clone(), persistent=False)

    def log_prob(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Log-mass of the targets' cells: (..., 3K), (..., 1) -> (...) in nats."""
        code = target.reshape(-1)
        lower, upper = self.edges[code], self.edges[code + 1]
        flat = parameters.to(self.edges.dtype).reshape(-1, self.parameter_size)
        return log_masses(flat, lower, upper, upper - lower).view(parameters.shape[:-1])

    def sample(self, parameters: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Codes (..., 1): the first number chooses a component, the second a value by inversion of its cdf."""
        logits, means, log_scales = parameters.unflatten(-1, (3, self.components)).unbind(-2)
        below = torch.softmax(logits / temperature, -1).cumsum(-1)[..., :-1]
        component = (below < noise[..., :1]).sum(-1, keepdim=True)
        mean = means.gather(-1, component)
        scale = log_scales.gather(-1, component).clamp(MIN_LOG_SCALE, MAX_LOG_SCALE).exp()
        return self._code(mean + scale * temperature * torch.logit(noise[..., 1:]))

    def mode(self, parameters: Tensor) -> Tensor:
        """Codes (..., 1) of the mean of the component with the largest weight."""
        logits, means, _ = parameters.unflatten(-1, (3, self.components)).unbind(-2)
        return self._code(means.gather(-1, logits.argmax(-1, keepdim=True)))

    def initial_bias(self, targets: Tensor, weights: Tensor) -> Tensor:
        """A mixture that roughly fits the marginal of the training codes: (3K,) float64."""
        fit = fit_mixture(self.edges, targets.reshape(-1), weights, self.components, iterations=_INITIAL_ITERATIONS)
        return fit.parameters

    def units(self, parameters: Tensor) -> Tensor:
        """Units of means from the scales of their components."""
        units = torch.ones_like(parameters)
        log_scales = parameters[2 * self.components :].clamp(MIN_LOG_SCALE, MAX_LOG_SCALE)
        units[self.components : 2 * self.components] = unit_of_mean(log_scales.exp())
        return units

    def _code(self, place: Tensor) -> Tensor:
        return torch.searchsorted(self.edges[1:-1], place.to(self.edges.dtype).contiguous(), right=True)


def spread_over_quantiles(lower: Tensor, upper: Tensor, share: Tensor, components: int) -> Tensor:
    """Parameters (3K,) of components with equal weights at quantiles, as wide as their distances, no two equal."""
    order = lower.argsort()
    lower, upper, share = lower[order], upper[order], share[order]
    centres = torch.where(lower < -1e9, upper, torch.where(upper > 1e9, lower, (lower + upper) / 2))
    levels = (torch.arange(components, dtype=torch.float64) + 0.5) / components
    quantile = torch.searchsorted(share.cumsum(0), torch.cat([torch.zeros(1), levels, torch.ones(1)]).double())
    quantile = quantile.clamp(max=len(centres) - 1)
    places, cells = centres[quantile], (upper - lower).clamp(max=1.0)[quantile[1:-1]]
    scales = torch.maximum((places[2:] - places[:-2]) / 4, cells / 2)
    # a code that covers several quantiles would give equal components, which would stay equal in training
    means = places[1:-1] + scales * (levels - 0.5)
    return torch.cat([torch.zeros(components, dtype=torch.float64), means, scales.log()])


@dataclass(frozen=True)
class Fit:
    """A fitted mixture.

    Attributes:
        parameters: (3K,) float64.
        nats: mean negative log-likelihood per code.
        converged: whether the tolerance was reached.
    """

    parameters: Tensor
    nats: float
    converged: bool


def fit_mixture(
    edges: Tensor,
    codes: Tensor,
    counts: Tensor,
    components: int,
    start: Tensor | None = None,
    iterations: int = 100,
    tolerance: float = 1e-7,
) -> Fit:
    """Maximum likelihood fit of a mixture to counted codes: L-BFGS in float64, deterministic.

    Args:
        edges: (codes + 1,) cell edges of the coding.
        codes: (N,) distinct codes.
        counts: (N,) how often each occurs.
        components: K.
        start: (3K,) initial parameters; None: components spread over quantiles, with distinct scales.
        iterations: maximum number of L-BFGS iterations.
        tolerance: relative change of the likelihood, and size of its gradient, at which the fit has converged.
    """
    present = counts > 0
    codes, share = codes[present].cpu(), counts[present].cpu().double()
    share = share / share.sum()
    edges = edges.detach().cpu().double()
    lower, upper = edges[codes], edges[codes + 1]
    if start is None:
        start = spread_over_quantiles(lower, upper, share, components)
    start = start.detach().cpu().double()
    # means are measured in units of the initial scales, so that all parameters have similar curvatures
    spread = torch.ones_like(start)
    spread[components : 2 * components] = start[2 * components :].clamp(MIN_LOG_SCALE, MAX_LOG_SCALE).exp()
    moves = torch.zeros_like(start).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [moves],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=tolerance * 1e-2,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def negative_log_likelihood() -> Tensor:
        optimiser.zero_grad()
        parameters = (start + moves * spread).expand(len(codes), -1)
        nats = -(_LogProb.apply(parameters, lower, upper, upper - lower) * share).sum()
        nats.backward()
        return nats

    optimiser.step(negative_log_likelihood)
    nats = float(negative_log_likelihood().detach())
    ended = optimiser.state[moves]["n_iter"] < iterations
    parameters = start + moves.detach() * spread
    # the scale of a point mass shrinks without limit; beyond the bounds, the scale of a network would have no gradient
    parameters[2 * components :].clamp_(MIN_LOG_SCALE, MAX_LOG_SCALE)
    return Fit(parameters, nats, ended)
