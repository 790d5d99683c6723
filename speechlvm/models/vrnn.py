"""Variational recurrent neural network.

          z_1         z_2         z_3          z_t from d_{t-1} (prior), and x_t (posterior)
         /   \\       /   \\       /   \\
    d_0 ----> d_1 ------> d_2 ------> d_3      d_t = GRU([phi_x(x_t), phi_z(z_t)], d_{t-1})
         \\   /       \\   /       \\   /
          x_1         x_2         x_3          x_t from z_t and d_{t-1}

    p(z_t | x_{<t}, z_{<t}) = N(MLP(d_{t-1}))                    A.3 to A.8
    q(z_t | x_{<=t}, z_{<t}) = N(MLP([phi_x(x_t), d_{t-1}]))
    p(x_t | x_{<t}, z_{<=t}) = distribution(MLP([phi_z(z_t), d_{t-1}])), frames of a step independent

References: source A is "Towards Generative Latent Variable Models for Speech" (2022), 2.4; Chung et al. 2015,
arXiv:1506.02216. Source A writes d_t for our d_{t-1}; its d_0 is zero, and so is ours.

Choices made here: source A gives one size for latents and hidden units, but in its published code the state is twice as
large: both are settings. That code generates from the state after its update and pairs z_t with x_{t-1}; here
generation uses the same state as training. Prior and posterior start close to N(0, 1) and to each other; by default
(`initialisation`) the first latents start as cosine coefficients of the stack.

Only posterior, phi_z and GRU are recurrent; everything else is computed for all steps at once (modules/recurrence.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Conditionals, Features, Inference, Samples, State
from speechlvm.modules.chain import Value
from speechlvm.modules.frames import stack_frames
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
from speechlvm.modules.recurrence import Chain, GRUCell
from speechlvm.utils.settings import Settings


class Config(Settings):
    """Sizes of a VRNN."""

    stack: int = Field(gt=0, le=4096, description="s, frames per step")
    latent: int = Field(default=256, gt=0, le=16384, description="D_z, size of the latents")
    hidden: int = Field(default=256, gt=0, le=16384, description="width of all MLPs")
    state: int = Field(default=512, gt=0, le=16384, description="size of the state of the GRU")
    mlp_layers: int = Field(default=4, ge=2, le=16, description="layers of each MLP, its output layer or head included")
    initialisation: Initialisation = Field(default="transform", description="see modules/initialise.py")


class VRNN(LatentModel):
    """See the module.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: output distribution of a frame.
    """

    Config = Config
    reference = "Chung et al., A Recurrent Latent Variable Model for Sequential Data, 2015, arXiv:1506.02216"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.config, self.channels, self.distribution = config, channels, distribution
        self.stack = self.hop = config.stack
        self.latent_hops, self.latent_sizes = {"z1": config.stack}, {"z1": config.latent}
        hidden, layers, joint = config.hidden, config.mlp_layers, config.hidden + config.state
        self.phi_x = MLP(config.stack * channels, hidden, layers, observed_input=True)
        self.phi_z = MLP(config.latent, hidden, layers)
        self.prior = MLP(config.state, hidden, layers - 1, 2 * config.latent)
        self.posterior = MLP(joint, hidden, layers - 1, 2 * config.latent)
        self.decoder = MLP(joint, hidden, layers - 1)
        self.cell = GRUCell(2 * hidden, config.state)
        self.head = OutputLayer(hidden, config.stack * distribution.parameter_size)
        start_as_standard_normal(self.prior, self.posterior)
        if config.initialisation == "transform":
            self._start_as_transform_code()

    def _start_as_transform_code(self) -> None:
        """Initialise the first latents as noisy cosine coefficients of the stack, which the decoder can read."""
        numbers = min(self.config.hidden // 4, self.config.latent, self.stack * self.channels)
        carried = both_signs(torch.eye(numbers))
        start_carrying(self.phi_x, both_signs(cosine_transform(self.stack, numbers, self.channels)))
        start_carrying(self.posterior, torch.eye(2 * numbers))
        start_reading(self.posterior.output, numbers)
        start_carrying(self.phi_z, carried)
        start_carrying(self.decoder, torch.eye(2 * numbers))

    def initial_state(self, batch: int) -> State:
        """d_0 = 0."""
        d = self.head.weight.new_zeros(batch, self.config.state)
        return {"d": d, "frames": torch.zeros(batch, dtype=torch.int64)}

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
        phi_x = self.phi_x(stack_frames(inputs, self.stack).transpose(0, 1))
        chain = Chain(d=state["d"])
        raw = chain.mlp("q", self.posterior, phi_x, chain.before("d"))
        z = chain.draw("z", raw, normal)
        z, raw, phi_z, d = chain.run(z, raw, *self._transition(chain, phi_x, z))
        before = torch.cat([state["d"][None], d[:-1]])
        conditionals = self._conditionals(phi_z, before, frames, raw, decode)
        after = {"d": d[-1], "frames": state["frames"] + frames}
        return Inference({"z1": z.transpose(0, 1)}, conditionals, after)

    def _transition(self, chain: Chain, phi_x: Tensor, z: Value | Tensor) -> tuple[Value | Tensor, Value]:
        """phi_z(z_t) and d_t."""
        phi_z = chain.mlp("phi", self.phi_z, z)
        return phi_z, chain.gru("d", self.cell, (self.cell.input, phi_x, phi_z))

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
        phi_x = self.phi_x(stack_frames(inputs, self.stack).transpose(0, 1))
        chain = Chain(d=state["d"])
        phi_z, d = chain.run(*self._transition(chain, phi_x, latents["z1"].transpose(0, 1)))
        before = torch.cat([state["d"][None], d[:-1]])
        raw = None if features is None else self.posterior(torch.cat([phi_x, before], -1))
        conditionals = self._conditionals(phi_z, before, frames, raw, decode)
        return Inference(latents, conditionals, {"d": d[-1], "frames": state["frames"] + frames})

    def _conditionals(
        self, phi_z: Tensor, before: Tensor, frames: int, raw: Tensor | None, decode: bool = True
    ) -> Conditionals:
        """Factors from phi_z(z_t), d_{t-1} and the raw posterior, all (S, B, .)."""
        prior = DiagonalGaussian.from_raw(self.prior(before).transpose(0, 1))
        posterior = {} if raw is None else {"z1": DiagonalGaussian.from_raw(raw.transpose(0, 1))}
        parameters = self._decode(phi_z, before, frames) if decode else None
        return Conditionals(parameters, {"z1": prior}, posterior)

    def _decode(self, phi_z: Tensor, before: Tensor, frames: int) -> Tensor:
        """Parameters (B, T, P)."""
        return self.frame_parameters(self.head, self.decoder(torch.cat([phi_z, before], -1)), frames)

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """See `Model._sample`."""

        def predict(memory: State, choose: Choose) -> tuple[Tensor, State]:
            phi_z = self.phi_z(choose("z1", DiagonalGaussian.from_raw(self.prior(memory["d"]))))
            parameters = self._decode(phi_z[None], memory["d"][None], self.stack)
            return parameters, {**memory, "phi_z": phi_z}

        def update(memory: State, stack: Tensor) -> State:
            gates = self.cell.input(torch.cat([self.phi_x(stack), memory["phi_z"]], -1))
            return {"d": self.cell.step(gates, memory["d"])}

        return sample_stepwise(self, draws, inputs_of, state, predict, update)
