"""The interface of models: pure scorers and samplers, without losses, files or logs.

inputs (B, T, C) ----> forward ----> Bound: log_likelihood (B, T), KL per level (B, T_l, D_l)
target (B, T, E) --/      |
state, features, noise -/  \\--> state, from which scoring of the next chunk or generation continues
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import kl
from speechlvm.distributions.noise import Noise
from speechlvm.models.bound import (
    Bound,
    Conditionals,
    Features,
    Inference,
    Samples,
    Series,
    State,
    chunks,
    slice_features,
)
from speechlvm.modules.frames import frame_mask, full_precision
from speechlvm.modules.output import OutputLayer
from speechlvm.utils.devices import to_device

if TYPE_CHECKING:
    from speechlvm.models.experts import Experts  # imports numba


class Model(nn.Module, ABC):
    """A system: weights, `forward` over a sequence, `sample`, and their initial state.

    Attributes:
        reference: the paper, for model cards.
        distribution: the output distribution.
        channels: C, input channels.
        stack: s, frames per step.
        hop: chunks are multiples of this number of frames (s; s_L for CW-VAE).
        halo: frames on either side of a step that its features see; unused by recurrent encoders.
        bound: "exact" or "elbo".
        head: the output layer, which gives the parameters of one or several frames.
        latent_hops: level name -> frames per latent step, "z1" (the lowest level) first; empty without latents.
        latent_sizes: level name -> D_l.
        hidden_sizes, hidden_chosen: name -> D of the states that `hidden_states` can return; its default choice.
        experts: what it knows of each frame beside its own weights; None: nothing.
    """

    reference: str
    distribution: Distribution
    head: OutputLayer
    channels: int
    stack: int
    hop: int
    halo: int = 0
    bound: str
    latent_hops: Mapping[str, int] = MappingProxyType({})
    latent_sizes: Mapping[str, int] = MappingProxyType({})
    hidden_sizes: Mapping[str, int] = MappingProxyType({})
    hidden_chosen: tuple[str, ...] = ()
    experts: Experts | None = None

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """State before the first frame."""

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Features that look ahead, from whole utterances (B, T, C), zero beyond lengths (B,). Default: none."""
        return {}

    def encode_chunks(self, read: Callable[[int, int], Tensor], frames: int, chunk: int) -> Iterator[Features]:
        """`encode` long utterances chunk by chunk, in memory that does not grow with their length.

        This implementation is for encoders that see at most `halo` frames on each side; recurrent ones override it.

        Args:
            read: (start, stop) -> inputs (B, stop - start, C); may be called several times for a frame.
            frames: T, the same for all rows.
            chunk: frames per chunk, a multiple of `hop`.
        """
        halo = -(-self.halo // self.hop) * self.hop
        for start, stop in chunks(frames, chunk):
            first, last = max(0, start - halo), min(frames, stop + halo)
            window = read(first, last)
            features = self.encode(window, torch.full((len(window),), last - first, device=window.device))
            yield slice_features(features, start - first, stop - first)

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        target: Tensor,
        lengths: Tensor,
        *,
        features: Features | None = None,
        state: State | None = None,
        noise: Noise | None = None,
    ) -> tuple[Bound, State]:
        """Score a chunk.

        Args:
            inputs: (B, T, C) the frames of the chunk (the model shifts them itself), zero beyond `lengths`.
            target: (B, T, E) the same frames as targets; any valid target beyond `lengths`.
            lengths: (B,) int64, number of real frames in the chunk (may be <= 0 for rows that have ended).
            features: features of the chunk (`slice_features`); required by models whose `encode` returns any. Training
                gives "experts" of models that have them.
            state: state after the previous chunk; None at the beginning. T is a multiple of `hop` except in the last
                chunk.
            noise: required by models with latents; positions are absolute, so results do not depend on chunks.
        """

    @torch.no_grad()
    def sample(
        self,
        frames: int,
        noise: Noise,
        inputs_of: Callable[[Tensor], Tensor],
        state: State | None = None,
        *,
        latents: Mapping[str, Tensor] = MappingProxyType({}),
        temperature: float | Tensor = 1.0,
        choose: Callable[[Tensor], Tensor] | None = None,
    ) -> Samples:
        """Ancestral samples of `frames` frames, one row per key of `noise`.

        Args:
            frames: T.
            noise: noise that latents and frames are drawn with.
            inputs_of: target (..., E) -> network input (..., C), from the Observation.
            state: state after a prefix scored by `forward`, to continue it; None samples from the start.
            latents: level name -> (B, T_l, D_l) to use instead of drawing. Rows of NaN are drawn, so that rows of a
                batch can keep different levels. What is drawn depends on these latents as it would on drawn ones: by
                the priors of levels that come later, and by frames that are fed back.
            temperature: multiplies the standard deviations of latents and frames (see `Distribution.sample`); one
                number, or (B,), one per row. The log-probabilities returned are those of the model nevertheless.
            choose: (B, n, P) parameters of the next n frames -> (B, n, E) their targets, instead of drawing; as stacks
                are whole, the last ones may be beyond `frames`.

        Raises:
            ValueError: see `start` and `Draws`.
        """
        before = self.start(state, len(noise))
        return self._sample(Draws(self, frames, noise, state, latents, temperature, choose), inputs_of, before)

    @abstractmethod
    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """Implementation of `sample`: everything random comes from `draws`; `state` is never None."""

    def hidden_states(
        self, inputs: Tensor, names: Collection[str], state: State | None = None
    ) -> tuple[dict[str, Tensor], State]:
        """Deterministic states of a model without latents, and the state after the chunk.

        Args:
            inputs: (B, T, C) the frames of the chunk, zero beyond the length of each row.
            names: keys of `hidden_sizes`.
            state: as in `forward`.

        Returns:
            name -> (B, S, D), one vector per stack: the state that stack t is predicted from, which has seen the stacks
            before t.

        Raises:
            ValueError: the model has no hidden states.
        """
        raise ValueError(f"{type(self).__name__} has no hidden states, as `hidden_sizes` says")

    def score(
        self,
        inputs: Tensor,
        target: Tensor,
        lengths: Tensor,
        noise: Noise | None = None,
        features: Features | None = None,
    ) -> Bound:
        """`encode`, where no features are given, and `forward` over whole utterances or training segments."""
        features = self.encode(inputs, lengths) if features is None else features
        return self(inputs, target, lengths, features=features, noise=noise)[0]

    def initialise_output(self, parameters: Tensor, gain: float = 0.1) -> None:
        """Start at the marginal of the data, `parameters` (P,) of a frame, with small deviations from the weights.

        Without this, a network with 2^16 codes starts worse than uniform, with gradients of 1e5.
        """
        units = self.distribution.units(parameters)
        for layer in self.modules():
            if isinstance(layer, OutputLayer):
                layer.start_at(parameters, units, gain)

    def start(self, state: State | None, batch: int) -> State:
        """The state to continue from.

        Raises:
            ValueError: the state is in the middle of a step; only the last chunk may end there.
        """
        seen = self.frames_seen(state, batch)
        if seen % self.hop:
            raise ValueError(f"a state after {seen} frames cannot be continued; expected a multiple of {self.hop}")
        return self.initial_state(batch) if state is None else state

    def frames_seen(self, state: State | None, batch: int) -> int:
        """Absolute position of the next frame (the same for all rows of a batch)."""
        return 0 if state is None else int(state["frames"][0])

    def frame_parameters(self, head: OutputLayer, hidden: Tensor, frames: int) -> Tensor:
        """Parameters (B, frames, P) from one vector per step (S, B, hidden), in full precision."""
        hidden = hidden.transpose(0, 1)  # before the head, whose output is many times larger
        with full_precision(hidden):
            parameters = head(hidden.to(head.weight.dtype))
        return parameters.reshape(len(parameters), -1, self.distribution.parameter_size)[:, :frames]

    def draw_noise(self, noise: Noise, level: str, first_frame: int, frames: int) -> Tensor:
        """Standard normal numbers (B, T_l, D_l) for the latents of frames first_frame .. first_frame + frames - 1."""
        size, all_hops = self.latent_sizes, self.latent_hops.items()
        return noise.normals({l: (first_frame // hop, -(-frames // hop), size[l]) for l, hop in all_hops})[level]


class LatentModel(Model):
    """A model with latent variables, scored by the one-sample evidence lower bound."""

    bound = "elbo"
    top_down = True
    """Whether the latents of a step are drawn from the highest level down instead of from the lowest up."""

    @abstractmethod
    def infer(
        self,
        inputs: Tensor,
        lengths: Tensor,
        *,
        features: Features,
        noise: Noise,
        state: State | None = None,
        decode: bool = True,
    ) -> Inference:
        """Draw latents from the posterior; arguments as in `forward`.

        Without `decode`, parameters of frames are not computed, and the state can only be used without `decode`.
        """

    @abstractmethod
    def follow(
        self,
        inputs: Tensor,
        lengths: Tensor,
        latents: dict[str, Tensor],
        *,
        features: Features | None = None,
        state: State | None = None,
        decode: bool = True,
    ) -> Inference:
        """All factors at given latents (B, T_l, D_l), and the state after the chunk.

        Without features, posteriors are not computed; `decode` as in `infer`.
        """

    def conditionals(
        self,
        inputs: Tensor,
        lengths: Tensor,
        latents: dict[str, Tensor],
        *,
        features: Features | None = None,
        state: State | None = None,
    ) -> Conditionals:
        """All factors at given latents (B, T_l, D_l); without features, posteriors are not computed."""
        return self.follow(inputs, lengths, latents, features=features, state=state).conditionals

    def forward(
        self,
        inputs: Tensor,
        target: Tensor,
        lengths: Tensor,
        *,
        features: Features | None = None,
        state: State | None = None,
        noise: Noise | None = None,
    ) -> tuple[Bound, State]:
        """See `Model.forward`."""
        if features is None or noise is None:
            raise ValueError("the posterior needs features (from `encode`) and noise")
        inference = self.infer(inputs, lengths, features=features, noise=noise, state=state)
        conditionals = inference.conditionals
        divergences, ratios = {}, {}
        for level, z in inference.latents.items():
            p, q = conditionals.prior[level], conditionals.posterior[level]
            divergences[level] = self._series(level, kl(q, p), lengths, inputs.shape[1])
            ratios[level] = self._series(level, (q.log_prob(z) - p.log_prob(z)).sum(-1), lengths, inputs.shape[1])
        likelihood = self._log_likelihood(conditionals.parameters, target, lengths)
        return Bound(likelihood, divergences, ratios, inference.auxiliary), inference.state

    def log_joint(
        self,
        inputs: Tensor,
        target: Tensor,
        lengths: Tensor,
        latents: dict[str, Tensor],
        *,
        state: State | None = None,
    ) -> tuple[Series, dict[str, Series]]:
        """log p(x_t | ...) per frame and log p(z_t | ...) per step of every level, in nats, at given latents."""
        conditionals = self.conditionals(inputs, lengths, latents, state=state)
        priors = {
            level: self._series(level, prior.log_prob(latents[level]).sum(-1), lengths, inputs.shape[1])
            for level, prior in conditionals.prior.items()
        }
        return self._log_likelihood(conditionals.parameters, target, lengths), priors

    def reconstruct(self, inputs: Tensor, lengths: Tensor, noise: Noise) -> Tensor:
        """Parameters (B, T, P) of the likelihood at latents drawn from the posterior, over whole utterances."""
        features = self.encode(inputs, lengths)
        return self.infer(inputs, lengths, features=features, noise=noise).conditionals.parameters

    def _series(self, level: str, values: Tensor, lengths: Tensor, frames: int) -> Series:
        hop = self.latent_hops[level]
        mask = frame_mask(lengths, frames, hop)
        masked = values.masked_fill(~mask.view(*mask.shape, *[1] * (values.dim() - 2)), 0.0)
        return Series(masked, mask, hop)

    def _log_likelihood(self, parameters: Tensor, target: Tensor, lengths: Tensor) -> Series:
        mask = frame_mask(lengths, target.shape[1])
        with full_precision(parameters):
            log_prob = self.distribution.log_prob(parameters, target)
        return Series(log_prob.masked_fill(~mask, 0.0), mask, 1)


class Draws:
    """Everything that the steps of a sample draw from: noise at a temperature, and given latents.

    Args:
        model: the model.
        frames: T.
        noise, state, latents, temperature, choose: arguments of `Model.sample`.

    Raises:
        ValueError: latents of unknown levels, of wrong shapes, or NaN in part of a row; a temperature of 0 or less.
    """

    def __init__(
        self,
        model: Model,
        frames: int,
        noise: Noise,
        state: State | None,
        latents: Mapping[str, Tensor],
        temperature: float | Tensor,
        choose: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.frames = frames
        self._model, self._noise, self.choose = model, noise, choose
        self._position = model.frames_seen(state, len(noise))
        self._latents = {name: self._checked(name, values) for name, values in latents.items()}
        given = temperature.expand(len(noise)).tolist() if isinstance(temperature, Tensor) else [temperature]
        if not all(0 < value < math.inf for value in given):
            raise ValueError(f"temperature: expected positive numbers, found {temperature}")
        self._temperature = to_device(torch.tensor(given, dtype=noise.dtype), noise.device).view(-1, 1, 1)

    def _checked(self, level: str, values: Tensor) -> Tensor:
        sizes = self._model.latent_sizes
        if level not in sizes:
            raise ValueError(f"latents: no level '{level}'; expected {', '.join(sizes) or 'none at all'}")
        shape = (len(self._noise), -(-self.frames // self._model.latent_hops[level]), sizes[level])
        if values.shape != shape:
            raise ValueError(f"latents of {level}: expected shape {shape}, found {tuple(values.shape)}")
        values = values.to(self._noise.device, self._noise.dtype)
        drawn = values.isnan().flatten(1)
        if (drawn.any(1) != drawn.all(1)).any():
            raise ValueError(f"latents of {level}: a row is NaN in part; expected all of it or nothing")
        return values

    def normal(self, level: str, start: int, frames: int) -> Tensor:
        """Normal numbers (B, T_l, D_l) for frames start .. start + frames - 1; the temperature is their std."""
        return self._model.draw_noise(self._noise, level, self._position + start, frames) * self._temperature

    def uniform(self, start: int, frames: int) -> Tensor:
        """Uniform numbers (B, frames, .) for frames start .. start + frames - 1."""
        return self._noise.uniform("x", self._position + start, frames, self._model.distribution.noise_size)

    def given(self, level: str, step: int, steps: int) -> Tensor | None:
        """Given latents (B, n, D_l) from step `step` on, NaN in rows where they are drawn; None: in all rows."""
        return self._latents[level][:, step : step + steps] if level in self._latents else None

    def target(self, parameters: Tensor, uniform: Tensor) -> Tensor:
        """Frames (B, n, E) from their parameters (B, n, P): drawn with uniform numbers, or chosen by `choose`."""
        if self.choose is not None:
            return self.choose(parameters)
        return self._model.distribution.sample(parameters, uniform, self._temperature)
