"""Clockwork variational autoencoder for speech.

    z3, h3 |---------------------------------------|     s3 = 64 s1
             v upsampled                                 every level: z_t from h_t; h_t from z_{t-1} and the level above
    z2, h2 |----|----|----|----|----|----|----|----|     s2 = 8 s1
             v
    z1, h1 ||||||||||||||||||||||||||||||||||||||||||    s1 frames per step
             v causal decoder
    x      frames, independent given z1 (and h1, a function of the latents alone)

    h_t^l = GRU(MLP([z_{t-1}^l, context_t^l]), h_{t-1}^l)     context: decoder of level l + 1 at this level's rate
    p(z_t^l | z_{<t}^l, z^{l+1}) = N(MLP(h_t^l))              A.9, A figure 8 (the cell of Hafner et al. 2019)
    q(z_t^l | z_{<t}^l, z^{l+1}, x) = N(MLP([h_t^l, e_t^l]))  A.10; e: ladder encoder
    p(x | z^1): not autoregressive; frames depend on each other only through the latents

References: source A is "Towards Generative Latent Variable Models for Speech" (2022), 2.5, 2.6; Saxena et al.
2021, arXiv:2102.09532. Left open there and chosen here: coder and strides (modules/conv_coder.py); e_t also sees the
coder's halo unless `span` is "strict", as (A.10) has it; the posterior's MLP has a linear path from e_t to its output;
codes that latents start as (modules/coder_start.py). With `prior: context`, not published, the prior's parameters also
have a linear path from context_t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian, precision_weighted
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import join_samples
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Conditionals, Features, Inference, Samples, Series, State
from speechlvm.modules.chain import Value
from speechlvm.modules.coder_start import start_with_codes
from speechlvm.modules.conv_coder import CausalDecoder, LadderEncoder, check_stride, factorise
from speechlvm.modules.frames import frame_mask, full_precision
from speechlvm.modules.initialise import Initialisation
from speechlvm.modules.output import OutputLayer
from speechlvm.modules.recurrence import Chain, GRUCell, mean_half
from speechlvm.utils.settings import Settings

GENERATED_AT_ONCE_FRAMES = 2**18
"""Frames of all rows together; bounds the memory of long generation without changing results."""


class CWVAEConfig(Settings):
    """Settings of `CWVAE`.

    Attributes:
        stride: s_1, frames per step of the lowest level; a product of 2, 3, 5 and 7 (convolutions stride by up to 8).
        levels: L.
        factor: c, s_l = c^(l - 1) s_1; likewise a product of 2, 3, 5 and 7.
        width: size of the latents, the states and all layers (hidden layers of the coder: twice or four times).
        blocks: residual blocks at each level's rate, in the encoder and in the decoder.
        prior: "state": a function of h_t, as published; "context": with a linear path from context_t beside it.
        posterior: "plain"; "residual": its mean is relative to that of the prior; "precision": product with the prior.
        span: "halo": features see the receptive field of the coder; "strict": only the frames of their own step.
        initialisation: of the lowest level and, with `prior` "context", of the second, see `modules.coder_start`.
    """

    stride: int = Field(64, ge=2, le=4096)
    levels: int = Field(1, ge=1, le=4)
    factor: int = Field(8, ge=2, le=64)
    width: int = Field(96, ge=1, le=4096)
    blocks: int = Field(2, ge=0, le=32)
    prior: Literal["state", "context"] = "state"
    posterior: Literal["plain", "residual", "precision"] = "plain"
    span: Literal["halo", "strict"] = "halo"
    initialisation: Initialisation = "transform"

    @model_validator(mode="after")
    def _check_strides(self) -> CWVAEConfig:
        for name in ("stride", "factor"):
            check_stride(name, getattr(self, name))
        return self


@dataclass(frozen=True)
class Trajectory:
    """Latents and states of one level.

    Attributes:
        z: (B, T_l, width) latents.
        h: (B, T_l, width) states.
        direct: (B, T_l, 2 width) what the context adds to the raw prior; None: nothing.
        distribution: (B, T_l, width) distribution that z was drawn from; None if z was given.
    """

    z: Tensor
    h: Tensor
    direct: Tensor | None
    distribution: DiagonalGaussian | None


class Level(nn.Module):
    """Latents of one clock: transition, prior and posterior.

    Args:
        width: size of latents, states, features and context.
        top: whether this is the top level.
        prior, posterior: kinds, see `CWVAEConfig`.
    """

    def __init__(self, width: int, top: bool, prior: str, posterior: str) -> None:
        super().__init__()
        self.kind = posterior
        self.latent = nn.Linear(width, width, bias=False)
        self.context = None if top else nn.Linear(width, width, bias=False)
        self.context_bias = nn.Parameter(torch.zeros(width))
        self.cell = GRUCell(width, width)
        self.prior_hidden = nn.Linear(width, width)
        self.prior_output = nn.Linear(width, 2 * width)
        self.prior_direct = nn.Linear(width, 2 * width, bias=False) if prior == "context" and not top else None
        self.posterior_state = nn.Linear(width, width, bias=False)
        self.posterior_evidence = nn.Linear(width, width)
        self.posterior_output = nn.Linear(width, 2 * width, bias=False)
        self.posterior_direct = nn.Linear(width, 2 * width)
        with torch.no_grad():  # prior and posterior start close to N(0, 1) and to each other
            for layer in (self.prior_output, self.posterior_output, self.posterior_direct):
                layer.weight.mul_(0.1)
                if layer.bias is not None:
                    layer.bias.zero_()
            for path in (self.context, self.prior_direct):
                if path is not None:  # the noise of a level above that says nothing yet must not enter this one
                    path.weight.zero_()

    def prior(self, h: Tensor, direct: Tensor | None) -> DiagonalGaussian:
        """p(z_t | h_t, context_t); `direct` is as in `Trajectory`."""
        with full_precision(h):
            return DiagonalGaussian.from_raw(self._raw_prior(Chain(), h, direct))

    def posterior(self, h: Tensor, direct: Tensor | None, evidence: Tensor) -> DiagonalGaussian:
        """q(z_t | h_t, e_t), and with the context if it is relative to the prior."""
        with full_precision(h):
            q = DiagonalGaussian.from_raw(self._raw_posterior(Chain(), h, direct, *self._terms(evidence)))
        return precision_weighted(self.prior(h, direct), q) if self.kind == "precision" else q

    def infer(self, evidence: Tensor, context: Tensor | None, noise: Tensor, z: Tensor, h: Tensor) -> Trajectory:
        """Draw from the posterior.

        Args:
            evidence: (B, T, width) features of the observations.
            context: (B, T, width) from the level above; None at the top.
            noise: (B, T, width) standard normal.
            z, h: (B, width) before the first step.
        """
        chain = Chain(z=z, h=h)
        state, direct = self._transition(chain, self._project(context, noise), chain.before("z")), self._direct(context)
        if self.kind == "precision":

            def draw(h: Tensor, evidence: Tensor, noise: Tensor, direct: Tensor | None = None) -> tuple[Tensor]:
                return (self.posterior(h, direct, evidence).sample(noise),)

            terms = (evidence.transpose(0, 1), noise.transpose(0, 1), *_given(_time_major(direct)))
            drawn = chain.call({"z": noise.shape[-1]}, draw, state, *terms)
            z, h = (x.transpose(0, 1) for x in chain.run(*drawn, state))
            return Trajectory(z, h, direct, self.posterior(h, direct, evidence))
        raw = self._raw_posterior(chain, state, *map(_time_major, (direct, *self._terms(evidence))))
        return self._draw(chain, state, direct, raw, noise)

    def generate(self, context: Tensor | None, noise: Tensor, z: Tensor, h: Tensor) -> Trajectory:
        """Draw from the prior; arguments as in `infer`."""
        chain = Chain(z=z, h=h)
        state, direct = self._transition(chain, self._project(context, noise), chain.before("z")), self._direct(context)
        return self._draw(chain, state, direct, self._raw_prior(chain, state, _time_major(direct)), noise)

    def follow(self, latents: Tensor, context: Tensor | None, z: Tensor, h: Tensor) -> Trajectory:
        """Along given latents (B, T, width)."""
        chain, before = Chain(h=h), torch.cat([z.unsqueeze(1), latents[:, :-1]], 1)
        state = self._transition(chain, self._project(context, latents), before.transpose(0, 1))
        return Trajectory(latents, chain.run(state)[0].transpose(0, 1), self._direct(context), None)

    # -- equations; in chains time-major -----------------------------------------------------------------------------

    def _transition(self, chain: Chain, context: Tensor, z: Value | Tensor) -> Value:
        """h_t from z_{t-1} and the projected context (B, T, width)."""
        u = chain.linear("u", (self.latent, z), context.transpose(0, 1), active=True)
        return chain.gru("h", self.cell, (self.cell.input, u))

    def _raw_prior(self, chain: Chain, h: Value | Tensor, direct: Tensor | None) -> Value | Tensor:
        p = chain.linear("p", (self.prior_hidden, h), active=True)
        return chain.linear("raw prior", (self.prior_output, p), *_given(direct))

    def _raw_posterior(
        self, chain: Chain, h: Value | Tensor, direct: Tensor | None, hidden: Tensor, linear: Tensor
    ) -> Value | Tensor:
        """Raw posterior; for precision-weighted posteriors, without the factor of the prior."""
        v = chain.linear("v", (self.posterior_state, h), hidden, active=True)
        terms = [(self.posterior_output, v), linear]
        if self.kind == "residual":
            p = chain.linear("p", (self.prior_hidden, h), active=True)
            terms += [(mean_half(self.prior_output), p), *_given(direct)]
        return chain.linear("raw", *terms)

    def _direct(self, context: Tensor | None) -> Tensor | None:
        return None if self.prior_direct is None else self.prior_direct(context)

    def _terms(self, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """Contributions of the evidence to the hidden layer of the posterior and to its output."""
        return self.posterior_evidence(evidence), self.posterior_direct(evidence)

    def _project(self, context: Tensor | None, like: Tensor) -> Tensor:
        if context is None:
            return self.context_bias.expand(*like.shape[:2], -1)
        return F.linear(context, self.context.weight, self.context_bias)

    def _draw(self, chain: Chain, state: Value, direct: Tensor | None, raw: Value, noise: Tensor) -> Trajectory:
        z = chain.draw("z", raw, noise.transpose(0, 1))
        z, h, raw = (x.transpose(0, 1) for x in chain.run(z, state, raw))
        return Trajectory(z, h, direct, DiagonalGaussian.from_raw(raw))


def _time_major(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.transpose(0, 1)


def _given(x: Tensor | None) -> list[Tensor]:
    return [] if x is None else [x]


class CWVAE(LatentModel):
    """Clockwork VAE.

    Args:
        config: settings.
        channels: C, input channels.
        distribution: output distribution of a frame.
    """

    Config = CWVAEConfig
    reference = (
        "Saxena et al., Clockwork Variational Autoencoders, 2021, arXiv:2102.09532; for speech: "
        "Towards Generative Latent Variable Models for Speech, 2022"
    )

    def __init__(self, config: CWVAEConfig, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.config, self.channels, self.distribution = config, channels, distribution
        width, strides = config.width, [factorise(config.stride)] + [factorise(config.factor)] * (config.levels - 1)
        self.stack = config.stride
        self.hops = [config.stride * config.factor**level for level in range(config.levels)]
        self.hop = self.hops[-1]
        self.latent_hops = {f"z{l}": hop for l, hop in enumerate(self.hops, 1)}
        self.latent_sizes = dict.fromkeys(self.latent_hops, width)
        self.encoder = LadderEncoder(channels, width, strides, config.blocks, config.span == "strict")
        self.halo = max(self.encoder.halo_frames)
        self.levels = nn.ModuleList(Level(width, hop == self.hop, config.prior, config.posterior) for hop in self.hops)
        # the last stride of the lowest decoder is that of the output layer
        ascents = [strides[0][:0:-1], *(s[::-1] for s in strides[1:])]
        self.decoders = nn.ModuleList(CausalDecoder(2 * width, width, s, config.blocks) for s in ascents)
        if config.initialisation == "transform":
            start_with_codes(self.levels, self.encoder, self.decoders, channels)
        self.hidden = nn.Linear(width, 2 * width)
        self.activation = nn.PReLU()
        self.head = OutputLayer(3 * width, strides[0][0] * distribution.parameter_size)

    def initial_state(self, batch: int) -> State:
        """Zeros for latents, states and the pasts of decoders."""
        zeros = self.head.weight.new_zeros(batch, self.config.width)
        state = {"frames": torch.zeros(batch, dtype=torch.int64)}
        for l, decoder in enumerate(self.decoders, 1):
            state.update({f"z{l}": zeros, f"h{l}": zeros, f"past{l}": decoder.initial_past(batch)})
        return state

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Features e1 .. eL of the levels, which look ahead by `encoder.halo_frames`."""
        frames = inputs.shape[1]
        features = self.encoder(inputs, lengths)
        return {
            f"e{l}": Series(values.to(inputs.dtype), frame_mask(lengths, frames, hop), hop)
            for l, (values, hop) in enumerate(zip(features, self.hops, strict=True), 1)
        }

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
        """See `LatentModel.infer`."""
        batch, frames, _ = inputs.shape
        first = self.frames_seen(state, batch)

        def draw(l: int, context: Tensor | None, z: Tensor, h: Tensor) -> Trajectory:
            evidence = features[f"e{l}"].values
            return self.levels[l - 1].infer(evidence, context, self.draw_noise(noise, f"z{l}", first, frames), z, h)

        chains, parameters, state = self._descend(draw, frames, self.start(state, batch), decode)
        latents = {f"z{l}": chain.z for l, chain in enumerate(chains, 1)}
        prior = {f"z{l}": self.levels[l - 1].prior(chain.h, chain.direct) for l, chain in enumerate(chains, 1)}
        posterior = {f"z{l}": chain.distribution for l, chain in enumerate(chains, 1)}
        return Inference(latents, Conditionals(parameters, prior, posterior), state)

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
        """See `LatentModel.follow`; only the shape of `inputs` is used."""
        batch, frames, _ = inputs.shape

        def along(l: int, context: Tensor | None, z: Tensor, h: Tensor) -> Trajectory:
            return self.levels[l - 1].follow(latents[f"z{l}"], context, z, h)

        chains, parameters, after = self._descend(along, frames, self.start(state, batch), decode)
        prior, posterior = {}, {}
        for l, chain in enumerate(chains, 1):
            level, name = self.levels[l - 1], f"z{l}"
            prior[name] = level.prior(chain.h, chain.direct)
            if features is not None:
                posterior[name] = level.posterior(chain.h, chain.direct, features[f"e{l}"].values)
        return Inference(latents, Conditionals(parameters, prior, posterior), after)

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """Draw whole levels, from the top down, since no frame is fed back (see `Model._sample`)."""
        block = max(1, GENERATED_AT_ONCE_FRAMES // len(state["frames"]) // self.hop) * self.hop
        parts = []
        for start in range(0, draws.frames, block):
            count = min(block, draws.frames - start)
            chains, parameters, state = self._descend(partial(self._generate, draws, start, count), count, state)
            target = draws.target(parameters, draws.uniform(start, count).to(parameters.dtype))
            named = {f"z{l}": chain for l, chain in enumerate(chains, 1)}
            parts.append(
                Samples(
                    target,
                    self.distribution.log_prob(parameters, target),
                    state,
                    {level: chain.z for level, chain in named.items()},
                    {level: chain.distribution.log_prob(chain.z).sum(-1) for level, chain in named.items()},
                )
            )
        return join_samples(parts, draws.frames)

    def _generate(
        self, draws: Draws, start: int, frames: int, l: int, context: Tensor | None, z: Tensor, h: Tensor
    ) -> Trajectory:
        """Latents of a level from frame `start` on: drawn from the prior, except in rows with given latents."""
        level, name = self.levels[l - 1], f"z{l}"
        chain = level.generate(context, draws.normal(name, start, frames), z, h)
        given = draws.given(name, start // self.latent_hops[name], chain.z.shape[1])
        if given is None:
            return chain
        chain = level.follow(torch.where(given.isnan(), chain.z, given), context, z, h)
        return replace(chain, distribution=level.prior(chain.h, chain.direct))

    def _descend(
        self,
        run: Callable[[int, Tensor | None, Tensor, Tensor], Trajectory],
        frames: int,
        state: State,
        decode: bool = True,
    ) -> tuple[list[Trajectory], Tensor | None, State]:
        """From the top level to the frames.

        Args:
            run: (level, context, z, h) -> trajectory of the level.
            frames: T.
            state: state at a multiple of `hop` frames.
            decode: whether to decode the lowest level to frames.

        Returns:
            The trajectories, lowest level first; parameters (B, T, P), None without `decode`; the state after the
            chunk.
        """
        after = {"frames": state["frames"] + frames}
        chains, context = [], None
        for l in range(len(self.levels), 0, -1):
            hop = self.hops[l - 1]
            with full_precision(state["z1"]):
                if context is not None:
                    context = context[:, : -(-frames // hop)].to(state["z1"].dtype)
                chain = run(l, context, state[f"z{l}"], state[f"h{l}"])
            chains.insert(0, chain)
            after.update({f"z{l}": chain.z[:, -1], f"h{l}": chain.h[:, -1]})
            if l == 1 and not decode:
                return chains, None, {**after, "past1": state["past1"]}
            context, past = self.decoders[l - 1](torch.cat([chain.z, chain.h], -1), state[f"past{l}"])
            after[f"past{l}"] = past
        hidden = self.activation(self.hidden(context))
        with full_precision(hidden):
            top = torch.cat([context, hidden], -1).to(self.head.weight.dtype)
            parameters = self.head(top).reshape(len(top), -1, self.distribution.parameter_size)
        return chains, parameters[:, :frames], after
