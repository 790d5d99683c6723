"""Bounds from K samples of each sequence: FIVO, and without resampling the importance-weighted bound.

    a_t^k = p(x_t, z_t^k | past of k) / q(z_t^k | past of k, x)                 z_t^k drawn from q
    Z_t = Z_{t-1} sum_k W_{t-1}^k a_t^k,   W_t^k = W_{t-1}^k a_t^k / sum        Z_0 = 1, W_0^k = 1 / K
    where 1 / sum_k (W_t^k)^2 <= K / 2: draw K ancestors by W_t, copy their states, and let W_t^k = 1 / K

E[Z_T] = p(x) for any posterior, even one that sees the future, so log Z_T is a lower bound on log p(x) in expectation.
Without the last line, Z_T is the mean of K importance weights (IWAE). With it, the relative variance of Z_T grows about
linearly in T instead of exponentially: the bound improves on the ELBO at every step, not only once.

A particle is one sample of all latents of a sequence so far. It is represented by the state of the model: a recurrent
state (VRNN, SRNN, Z-forcing) or the past of causal convolutions (STCN: decoder; Stochastic WaveNet: layers above the
lowest latent; CW-VAE: decoders of all levels), so copying a particle is copying its state. A step t is one `hop` of the
model: a stack, with the latents of all levels; in CW-VAE a step of the top level, within which lower levels are not
resampled, as their context is drawn with it.

If the posterior sees the future (SRNN when smoothing, Z-forcing, Stochastic WaveNet, CW-VAE), W_t favours particles
that do not fit the future, and FIVO may be looser than the importance-weighted bound.

References: Maddison et al. 2017, Filtering Variational Objectives, arXiv:1705.09279; Burda et al. 2015,
arXiv:1509.00519. The published code draws ancestors independently (multinomial); here resampling is systematic, with
the same expectation and a smaller variance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from speechlvm.distributions.noise import Noise, NoiseAhead
from speechlvm.models.base import Model
from speechlvm.models.bound import Features, State, chunks, select_rows, slice_features
from speechlvm.scoring.objective import row_sums, row_terms


class Particles:
    """K samples of each row of a batch, and the bound from them; see the module docstring.

    Args:
        model: any model; a model without latents is scored exactly, whatever K is.
        noise: one key per row; latents are drawn from copies of it, ancestors from itself.
        count: K.
        resample: whether to resample (FIVO).

    Attributes:
        nats: (B,) float64, log Z of everything added so far. Differentiable; ancestors have no gradient.
        terms: terms of the bound, (B,) float64 each: means over the particles, regardless of their weights.
    """

    def __init__(self, model: Model, noise: Noise, count: int, resample: bool) -> None:
        self.nats = torch.zeros(len(noise), dtype=torch.float64, device=noise.device)
        self.terms: dict[str, Tensor] = {}
        self._model, self._count, self._resample = model, count, resample
        copies = noise.repeat(count)
        self._noise = NoiseAhead(copies.keys, noise.device, noise.dtype) if resample else copies
        self._uniform = NoiseAhead(noise.keys, noise.device, torch.float64)
        self._log_weights = self.nats[:, None].expand(-1, count) - math.log(count)
        self._state: State | None = None

    def add(self, inputs: Tensor, target: Tensor, lengths: Tensor, features: Features) -> None:
        """Advance by a chunk; arguments as in `Model.forward`, with one row per sequence."""
        frames = inputs.shape[1]
        for start, stop in chunks(frames, self._model.hop if self._resample else frames):
            of_step = slice_features(features, start, stop)
            self._step(inputs[:, start:stop], target[:, start:stop], lengths - start, of_step)
            if self._resample:
                self._replace_degenerate()

    def _step(self, inputs: Tensor, target: Tensor, lengths: Tensor, features: Features) -> None:
        inputs, target, lengths = (x.repeat_interleave(self._count, 0) for x in (inputs, target, lengths))
        features = {name: series.repeat(self._count) for name, series in features.items()}
        bound, self._state = self._model(
            inputs, target, lengths, features=features, state=self._state, noise=self._noise
        )
        for name, value in row_terms(bound).items():
            if not name.startswith("log_ratio_"):
                self.terms[name] = self.terms.get(name, 0.0) + value.view(-1, self._count).mean(1)
        increments = row_sums(bound.log_likelihood) - sum(map(row_sums, bound.log_ratio.values()))
        log_weights = self._log_weights + increments.view(-1, self._count)
        total = log_weights.logsumexp(1)
        self.nats = self.nats + total
        self._log_weights = log_weights - total[:, None]

    def _replace_degenerate(self) -> None:
        """Resample rows whose effective number of particles is at most K / 2."""
        weights = self._log_weights.detach().exp()
        degenerate = weights.square().sum(1, keepdim=True) * self._count >= 2
        if weights.device.type == "cpu" and not degenerate.any():  # another device is not waited for
            return
        step = self._model.frames_seen(self._state, len(weights)) // self._model.hop
        drawn = systematic_ancestors(weights, self._uniform.uniform("resampling", step, 1, 1)[:, 0])
        own = torch.arange(self._count, device=weights.device)
        first = torch.arange(len(weights), device=weights.device)[:, None] * self._count
        self._state = select_rows(self._state, (first + torch.where(degenerate, drawn, own)).flatten())
        self._log_weights = torch.where(degenerate, -math.log(self._count), self._log_weights)


def systematic_ancestors(weights: Tensor, uniform: Tensor) -> Tensor:
    """Ancestors (B, K) int64 of K particles: particle k is drawn K W^k times on average, rounded up or down.

    Args:
        weights: (B, K), summing to 1.
        uniform: (B, 1) in (0, 1).
    """
    count = weights.shape[1]
    places = (torch.arange(count, device=weights.device) + uniform) / count
    cumulated = weights.cumsum(1)
    return torch.searchsorted(cumulated / cumulated[:, -1:], places)
