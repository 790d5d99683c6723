"""Stochastic recurrent neural network.

    a_1 <------ a_2 <------ a_3       a_t = GRU([d_t, phi_x(x_t)], a_{t+1}), right to left (smoothing)
     |           |           |              or MLP([d_t, phi_x(x_t)]) (filtering)
    z_1 ------> z_2 ------> z_3       z_t from z_{t-1}, d_t (prior), and a_t (posterior)
     | \\         | \\         | \\
     | x_1       | x_2       | x_3    x_t from z_t and d_t
     |           |           |
    d_1 ------> d_2 ------> d_3       d_t = GRU(phi_x(x_{t-1}), d_{t-1})

    p(z_t | z_{t-1}, x_{<t}) = N(MLP([z_{t-1}, d_t]))
    q(z_t | z_{t-1}, x_{1:T}) = N(prior's mean + m, s), (m, s) from MLP([z_{t-1}, a_t])    x_{<=t} when filtering
    p(x_t | x_{<t}, z_t) = distribution(MLP([z_t, d_t])), frames of a step independent

References: Fraccaro et al. 2016, arXiv:1605.07571, (3), (10) to (13) and the residual parameterisation of 3.3; source A
is "Towards Generative Latent Variable Models for Speech" (2022), 2.4, whose table has the smoother.

Source A writes q(z_t | x_{<=t}, z_{<t}) for the smoother. Its published code shifts the inputs twice in training, so
that d_t never sees x_{t-1}, and once in generation: here it is once in both. The first stack is predicted from a
learned start instead of x_0; z_0 is zero.

Besides the two GRUs only z is recurrent, so the chain of modules/recurrence.py has only prior and posterior layers.
`encode` computes a_t over whole utterances, and d_t, which is causal but would otherwise be computed twice.
By default (`initialisation`) the first latents start as cosine coefficients of the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian, residual
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Conditionals, Features, Inference, Samples, Series, State, chunks
from speechlvm.modules.frames import frame_mask, full_precision, reverse_steps, stack_frames
from speechlvm.modules.initialise import (
    Initialisation,
    both_signs,
    cosine_transform,
    start_as_standard_normal,
    start_carrying,
    start_reading,
)
from speechlvm.modules.mlp import MLP
from speechlvm.modules.output import OutputLayer
from speechlvm.modules.recurrence import Chain, GRUCell, mean_half
from speechlvm.utils.settings import Settings


class Config(Settings):
    """Sizes of an SRNN."""

    stack: int = Field(gt=0, le=4096, description="s, frames per step")
    latent: int = Field(default=256, gt=0, le=16384, description="D_z, size of the latents")
    hidden: int = Field(default=256, gt=0, le=16384, description="width of all MLPs")
    state: int = Field(default=512, gt=0, le=16384, description="size of the states of the GRUs")
    mlp_layers: int = Field(default=4, ge=2, le=16, description="layers of each MLP, its output layer or head included")
    posterior: Literal["smoothing", "filtering"] = Field(default="smoothing", description="what a_t sees")
    initialisation: Initialisation = Field(default="transform", description="see modules/initialise.py")


class SRNN(LatentModel):
    """See the module.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: output distribution of a frame.
    """

    Config = Config
    reference = "Fraccaro et al., Sequential Neural Models with Stochastic Layers, 2016, arXiv:1605.07571"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.config, self.channels, self.distribution = config, channels, distribution
        self.stack = self.hop = config.stack
        self.latent_hops, self.latent_sizes = {"z1": config.stack}, {"z1": config.latent}
        hidden, layers, state = config.hidden, config.mlp_layers, config.state
        self.start_stack = nn.Parameter(torch.zeros(config.stack * channels))
        self.phi_x = MLP(config.stack * channels, hidden, layers, observed_input=True)
        self.cell = GRUCell(hidden, state)
        if config.posterior == "smoothing":
            self.backward_cell, evidence = GRUCell(state + hidden, state), state
        else:
            self.filter, evidence = MLP(state + hidden, hidden, layers), hidden
        self.prior = MLP(state + config.latent, hidden, layers - 1, 2 * config.latent)
        self.posterior = MLP(evidence + config.latent, hidden, layers - 1, 2 * config.latent)
        self.decoder = MLP(config.latent + state, hidden, layers - 1)
        self.head = OutputLayer(hidden, config.stack * distribution.parameter_size)
        start_as_standard_normal(self.prior, self.posterior)
        if config.initialisation == "transform":
            self._start_as_transform_code()

    @torch.no_grad()
    def _start_as_transform_code(self) -> None:
        """Initialise the first latents as noisy cosine coefficients of the stack, which the decoder can read."""
        numbers = min(self.config.hidden // 4, self.config.latent, self.stack * self.channels)
        if self.config.posterior == "smoothing":
            numbers = min(numbers, self.config.state)
        carried = both_signs(torch.eye(numbers))
        start_carrying(self.phi_x, both_signs(cosine_transform(self.stack, numbers, self.channels)))
        if self.config.posterior == "smoothing":
            # a_t = tanh(coefficients / 2): its gate u is nearly closed, so that a_{t+1} contributes little
            gates, state = self.backward_cell.input, self.config.state
            n, _, u = (slice(first, first + numbers) for first in range(0, 3 * state, state))
            gates.weight[n].zero_()
            gates.weight[n, state : state + 2 * numbers] = 0.5 * carried.t().to(gates.weight)
            gates.bias[n], gates.bias[u] = 0.0, -4.0
            start_carrying(self.posterior, 2.0 * carried)
        else:
            start_carrying(self.filter, torch.eye(2 * numbers), first_input=self.config.state)
            start_carrying(self.posterior, torch.eye(2 * numbers))
        start_reading(self.posterior.output, numbers)
        start_carrying(self.decoder, carried)

    def initial_state(self, batch: int) -> State:
        """z_0 = 0, d_0 = 0, and the learned start for x_0."""
        zeros = self.head.weight.new_zeros
        return {
            "z": zeros(batch, self.config.latent),
            "d": zeros(batch, self.config.state),
            "stack": self.start_stack.expand(batch, -1),
            "frames": torch.zeros(batch, dtype=torch.int64),
        }

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """a_t and d_t (B, S, state) of the smoother; nothing when filtering."""
        if self.config.posterior == "filtering":
            return {}
        batch, frames, _ = inputs.shape
        stacks = stack_frames(inputs, self.stack).transpose(0, 1)
        mask = frame_mask(lengths, frames, self.stack)
        a, d = self._smoothed(stacks, self.initial_state(batch), mask.sum(1), None)
        return self._features(a, d, mask)

    def encode_chunks(self, read: Callable[[int, int], Tensor], frames: int, chunk: int) -> Iterator[Features]:
        """See `Model.encode_chunks`: d_t once forwards, a_t once backwards, then both again for each chunk.

        Only the recurrent states between chunks are kept in memory.
        """
        if self.config.posterior == "filtering":
            yield from super().encode_chunks(read, frames, chunk)
            return
        spans = chunks(frames, chunk)

        def stacks_of(span: tuple[int, int]) -> Tensor:
            return stack_frames(read(*span), self.stack).transpose(0, 1)

        state = self.initial_state(len(read(0, 1)))
        # one tensor, as many small ones would fragment memory
        before = {name: state[name].new_empty(len(spans), *state[name].shape) for name in ("d", "stack")}
        behind = before["d"].new_zeros(before["d"].shape)

        def smoothed(number: int) -> tuple[Tensor, Tensor]:
            state = {name: values[number] for name, values in before.items()}
            return self._smoothed(stacks_of(spans[number]), state, None, behind[number])

        for number, span in enumerate(spans):
            for name, values in before.items():
                values[number] = state[name]
            stacks = stacks_of(span)
            state = {"d": self._states(stacks, state)[1][-1], "stack": stacks[-1]}
        for number in reversed(range(1, len(spans))):
            behind[number - 1] = smoothed(number)[0][0]
        for number in range(len(spans)):
            a, d = smoothed(number)
            yield self._features(a, d, torch.ones(a.shape[1], len(a), dtype=torch.bool, device=a.device))

    def _smoothed(
        self, stacks: Tensor, state: State, steps: Tensor | None, after: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """a_t and d_t (S, B, state) of stacks (S, B, s * C).

        Args:
            stacks: stacks of a chunk.
            state: state before the chunk.
            steps: (B,) number of real steps of each row; None: all.
            after: (B, state), a_t of the step after the chunk; None (zero) for the last chunk.
        """
        phi_x, d = self._states(stacks, state)
        steps = torch.full((stacks.shape[1],), len(stacks), device=stacks.device) if steps is None else steps
        gates = self.backward_cell.input(reverse_steps(torch.cat([d, phi_x.to(d.dtype)], -1), steps))
        a = self.backward_cell.run(gates, torch.zeros_like(d[0]) if after is None else after)
        return reverse_steps(a, steps), d

    def _features(self, a: Tensor, d: Tensor, mask: Tensor) -> Features:
        return {name: Series(value.transpose(0, 1), mask, self.stack) for name, value in (("a", a), ("d", d))}

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
        """See `LatentModel.infer`; time-major inside."""
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        normal = self.draw_noise(noise, "z1", self.frames_seen(state, batch), frames).transpose(0, 1)
        stacks = stack_frames(inputs, self.stack).transpose(0, 1)
        if self.config.posterior == "smoothing":
            a, d = (features[name].values.transpose(0, 1) for name in ("a", "d"))
        else:
            a, d = self._filtered(stacks, state)
        chain = Chain(z=state["z"])
        p = chain.hidden("p", self.prior, d, chain.before("z"))
        q = chain.hidden("q", self.posterior, a, chain.before("z"))
        raw = chain.linear("raw", (self.posterior.output, q), (mean_half(self.prior.output), p))
        z, raw, p = chain.run(chain.draw("z", raw, normal), raw, p)
        with full_precision(z):
            prior = DiagonalGaussian.from_raw(self.prior.output(p).transpose(0, 1))
        posterior = DiagonalGaussian.from_raw(raw.transpose(0, 1))
        parameters = self._decode(z, d, frames) if decode else None
        conditionals = Conditionals(parameters, {"z1": prior}, {"z1": posterior})
        after = {"z": z[-1], "d": d[-1], "stack": stacks[-1], "frames": state["frames"] + frames}
        return Inference({"z1": z.transpose(0, 1)}, conditionals, after)

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
        """See `LatentModel.follow`."""
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        stacks, z = stack_frames(inputs, self.stack).transpose(0, 1), latents["z1"].transpose(0, 1)
        before = torch.cat([state["z"][None], z[:-1]])
        a, d = self._filtered(stacks, state) if self.config.posterior == "filtering" else (None, None)
        if d is None:
            d = self._states(stacks, state)[1]
        prior = DiagonalGaussian.from_raw(self.prior(torch.cat([d, before], -1)).transpose(0, 1))
        posterior = {}
        if features is not None:
            a = features["a"].values.transpose(0, 1) if a is None else a
            own = DiagonalGaussian.from_raw(self.posterior(torch.cat([a, before], -1)).transpose(0, 1))
            posterior["z1"] = residual(prior, own.mean, own.std)
        parameters = self._decode(z, d, frames) if decode else None
        after = {"z": z[-1], "d": d[-1], "stack": stacks[-1], "frames": state["frames"] + frames}
        return Inference(latents, Conditionals(parameters, {"z1": prior}, posterior), after)

    def _states(self, stacks: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """phi_x(x_t) and d_t of stacks (S, B, s * C)."""
        phi_x = self.phi_x(torch.cat([state["stack"][None], stacks]))
        return phi_x[1:], self.cell.run(self.cell.input(phi_x[:-1]), state["d"])

    def _filtered(self, stacks: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """a_t and d_t when filtering."""
        phi_x, d = self._states(stacks, state)
        return self.filter(torch.cat([d, phi_x.to(d.dtype)], -1)), d

    def _decode(self, z: Tensor, d: Tensor, frames: int) -> Tensor:
        """Parameters (B, T, P) from z_t and d_t (S, B, .)."""
        return self.frame_parameters(self.head, self.decoder(torch.cat([z, d], -1)), frames)

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """See `Model._sample`."""

        def predict(memory: State, choose: Choose) -> tuple[Tensor, State]:
            d = self.cell.step(self.cell.input(self.phi_x(memory["stack"])), memory["d"])
            prior = DiagonalGaussian.from_raw(self.prior(torch.cat([d, memory["z"]], -1)))
            z = choose("z1", prior)
            return self._decode(z[None], d[None], self.stack), {"z": z, "d": d}

        def update(memory: State, stack: Tensor) -> State:
            return {**memory, "stack": stack}

        return sample_stepwise(self, draws, inputs_of, state, predict, update)
