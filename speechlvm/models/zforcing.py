"""Z-forcing: a stochastic recurrent network whose latents must also predict the future.

    x_{t-1} --emb--+            prior       p(z_t | h_{t-1})        = N(MLP(h_{t-1}))
                   v            posterior   q(z_t | h_{t-1}, b_t)   = N(MLP([h_{t-1}, b_t]))
    h_{t-1} --> [LSTM] --> h_t  transition  h_t = LSTM([emb(x_{t-1}), g(z_t)], h_{t-1})
       |           ^        |   likelihood  p(x_t | h_t) = p(x_t | x_{<t}, z_{<=t})
       +--> z_t ---+        v
             ^             x_t  backward    b_t = LSTM(emb(x_t), b_{t+1})
             | (q)
    x_t --> b_t <-- b_{t+1}     auxiliary   -log N(b_t; f(z_t)), -log p(x_t | b_{t+1}): in training's objective only

t counts stacks of s frames. Reference: Goyal, Sordoni, Cote, Ke and Bengio 2017, "Z-Forcing: Training Stochastic
Recurrent Networks", arXiv:1711.05411; the published PyTorch code is sordonia/zforcing. Results of it are quoted by
source B, "Stochastic WaveNet: A Generative Latent Variable Model for Sequential Data" (Lai et al. 2018,
arXiv:1806.06116): "+kla" with the weight of the KL terms rising from 0.2, "+aux" with the first auxiliary loss.

Indices. In the paper, step t has the input x_t and the target x_{t+1}; here a step is named after its target, so the
paper's x_t, x_{t+1}, z_t, h_t, b_t are x_{t-1}, x_t, z_t, h_t, b_t. Hence prior and posterior both precede the input of
the step: the prior has seen x_{<t-1} (not x_{t-1}), and the posterior everything but x_{t-1}, which enters with the
transition. x_0 is learned; h_0 and the b of the backward network after the last stack are zero.

What the paper leaves open or the code does differently:

- The gradient of the first auxiliary loss stops at its target b_t; otherwise an uninformative backward network could
  make it small. It does reach that network through z_t, which was drawn given b_t, in the code as here.
- f sees z_t alone, as the paper has it; the code appends h_{t-1} unless its option z_force blanks it out. The mean goes
  through tanh because b_t, an LSTM's output, lies in (-1, 1). The density of a state that is known exactly has no upper
  bound: the standard deviation stays above e^-4, where the code cuts its logarithm of the variance at -8.
- p(x_t | b_{t+1}), with `backward_likelihood`, includes every stack; the last one is predicted from a state that has
  seen nothing, that is, by a marginal; the code leaves it out.
- Embedding, g and the output layers are linear; embedding shared by both networks; MLPs have one hidden layer. The code
  clips raw Gaussian parameters to [-8, 8] and hidden activations to [-3, 3] with a slope of 1/3 below zero; here these
  are `positive_std` and `MLP` as in all systems, and prior and posterior start close to N(0, 1). By default
  (`initialisation`) the first latents start as cosine coefficients of the stack.
- Conditional layer normalisation is in the code only: z_t does not enter by the input, but an MLP of it gives gains
  (around one) and biases of the normalised product of h_{t-1}, both clipped to 3; the embedding's product has learned
  ones, and the cell state is not normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Bound, Conditionals, Features, Inference, Samples, Series, State, chunks
from speechlvm.modules.chain import Value
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
from speechlvm.modules.recurrence import Affine, Chain, LSTMCell
from speechlvm.utils.settings import Settings

_MINIMUM_STATE_STD = math.exp(-4)
_MODULATION_LIMIT = 3.0


class Config(Settings):
    """Sizes; the defaults are the authors' for TIMIT."""

    stack: int = Field(gt=0, le=4096, description="s, frames per step")
    latent: int = Field(default=256, gt=0, le=16384, description="D, size of z_t")
    hidden: int = Field(default=512, gt=0, le=16384, description="M, width of the MLPs and of g(z_t)")
    state: int = Field(default=1024, gt=0, le=16384, description="H, size of h_t and b_t")
    embedding: int = Field(default=512, gt=0, le=16384, description="E, size of emb(x_t)")
    conditional_layer_norm: bool = Field(default=False, description="z_t modulates a layer-normalised LSTM")
    backward_likelihood: bool = Field(default=False, description="the backward network predicts the previous stack")
    initialisation: Initialisation = Field(default="transform", description="see modules/initialise.py")

    @model_validator(mode="after")
    def _check_initialisation(self) -> Config:
        if self.initialisation == "transform" and self.conditional_layer_norm:
            raise ValueError("initialisation transform cannot be used with conditional_layer_norm; expected plain")
        return self

    @property
    def auxiliary_losses(self) -> tuple[str, ...]:
        """Names of the losses that `training.auxiliary` can weight."""
        return ("zforcing", "backward") if self.backward_likelihood else ("zforcing",)


class LatentLSTM(nn.Module):
    """h_t = LSTM([e_t, g(z_t)], h_{t-1}), g linear. Sizes as in `Config`; sequences are time-major."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.generator = nn.Linear(config.latent, config.hidden)
        self.cell = LSTMCell(config.embedding + config.hidden, config.state)

    def term(self, embedded: Tensor) -> Tensor:
        """The part of the gates (..., 4 H) that comes from e_t (..., E) and the biases."""
        of_e, of_g = self.cell.input.weight.split([embedded.shape[-1], self.generator.out_features], -1)
        return F.linear(embedded, of_e, self.cell.input.bias) + F.linear(self.generator.bias, of_g)

    def step(self, term: Tensor, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """h_t and c_t from a term (B, 4 H), z_t (B, D), h_{t-1} and c_{t-1} (B, H)."""
        of_g = self.cell.input.weight[:, -self.generator.out_features :]
        return self.cell.step(term + F.linear(F.linear(z, self.generator.weight), of_g), h, c)

    def extend(self, chain: Chain, term: Tensor, z: Value | Tensor) -> tuple[Value, Value]:
        """h_t and c_t in a chain with initial h and c, from terms (S, B, 4 H) and z_t; merges two linear maps."""
        with full_precision(self.generator.weight):
            weight = self.cell.input.weight[:, -self.generator.out_features :] @ self.generator.weight
        return chain.lstm("h", "c", self.cell, term, (Affine(weight), z))


class ModulatedLSTM(nn.Module):
    """The same with conditional layer normalisation: z_t gives gains and biases of the recurrent product."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        gates = 4 * config.state
        self.input = nn.Linear(config.embedding, gates, bias=False)
        self.normalisation = nn.LayerNorm(gates)
        self.state = nn.Linear(config.state, gates, bias=False)
        self.modulation = MLP(config.latent, config.hidden, 1, 2 * gates)

    def term(self, embedded: Tensor) -> Tensor:
        """See `LatentLSTM.term`."""
        return self.normalisation(self.input(embedded))

    def step(self, term: Tensor, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """See `LatentLSTM.step`."""
        gain, shift = self.modulation(z).clamp(-_MODULATION_LIMIT, _MODULATION_LIMIT).chunk(2, -1)
        recurrent = F.layer_norm(self.state(h), gain.shape[-1:])
        o, i, f, g = (term + torch.addcmul(shift, 1.0 + gain, recurrent)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def extend(self, chain: Chain, term: Tensor, z: Value | Tensor) -> tuple[Value, Value]:
        """See `LatentLSTM.extend`."""
        sizes = dict.fromkeys(("h", "c"), self.state.in_features)
        return chain.call(sizes, self.step, term, z, chain.before("h"), chain.before("c"))


def _start_passing_on(
    order: str, weight: Tensor, recurrent: Tensor, bias: Tensor, numbers: int, first_input: int
) -> None:
    """Initialise the first units of an LSTM as tanh(tanh(x / 2)) of inputs x, with almost no memory.

    Args:
        order: order of the gates "i", "f", "g" and "o".
        weight: (4 H, K), weight of the inputs.
        recurrent: (4 H, H).
        bias: (4 H,).
        numbers: m, number of units and of inputs.
        first_input: index of the first of the m inputs.
    """
    state = recurrent.shape[1]
    for place, gate in enumerate(order):
        units = slice(place * state, place * state + numbers)
        bias[units] = {"i": 4.0, "f": -4.0, "g": 0.0, "o": 4.0}[gate]
        if gate == "g":
            recurrent[units].zero_()
            weight[units].zero_()
            weight[units, first_input : first_input + numbers] = 0.5 * torch.eye(numbers)


class ZForcing(LatentModel):
    """See the module.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: output distribution of a frame.
    """

    Config = Config
    reference = "Goyal et al., Z-Forcing: Training Stochastic Recurrent Networks, 2017, arXiv:1711.05411"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.config, self.distribution, self.channels = config, distribution, channels
        self.stack = self.hop = config.stack
        self.latent_hops, self.latent_sizes = {"z1": config.stack}, {"z1": config.latent}
        outputs = config.stack * distribution.parameter_size
        self.first_input = nn.Parameter(torch.zeros(config.stack * channels))
        self.embedding = nn.Linear(config.stack * channels, config.embedding)
        self.backward_lstm = nn.LSTM(config.embedding, config.state)
        self.prior = MLP(config.state, config.hidden, 1, 2 * config.latent)
        self.posterior = MLP(2 * config.state, config.hidden, 1, 2 * config.latent)
        self.transition = (ModulatedLSTM if config.conditional_layer_norm else LatentLSTM)(config)
        self.head = OutputLayer(config.state, outputs)
        self.reconstruction = MLP(config.latent, config.hidden, 1, 2 * config.state)
        self.backward_head = OutputLayer(config.state, outputs) if config.backward_likelihood else None
        start_as_standard_normal(self.prior, self.posterior)
        if config.initialisation == "transform":
            self._start_as_transform_code()

    @torch.no_grad()
    def _start_as_transform_code(self) -> None:
        """Initialise the first latents as noisy cosine coefficients of the stack, which the head can read from h_t."""
        config, inputs = self.config, self.stack * self.channels
        numbers = min(config.hidden // 4, config.embedding // 4, config.state // 4, config.latent, inputs)
        generator, identity = self.transition.generator, torch.eye(numbers)
        for layer, rows in (
            (self.embedding, cosine_transform(self.stack, numbers, self.channels)),
            (generator, identity),
        ):
            layer.weight[:numbers].zero_()
            layer.weight[:numbers, : rows.shape[1]] = rows.to(layer.weight)
            layer.bias[:numbers].zero_()
        backward, forward = self.backward_lstm, self.transition.cell
        backward.bias_hh_l0.zero_()
        _start_passing_on("ifgo", backward.weight_ih_l0, backward.weight_hh_l0, backward.bias_ih_l0, numbers, 0)
        _start_passing_on(
            "oifg", forward.input.weight, forward.state.weight, forward.input.bias, numbers, config.embedding
        )
        start_carrying(self.posterior, 2.0 * both_signs(identity))
        start_reading(self.posterior.output, numbers)

    def initial_state(self, batch: int) -> State:
        """The learned stack before the first, zero hidden and cell states."""
        hidden = self.first_input.new_zeros(batch, self.config.state)
        return {
            "stack": self.first_input.expand(batch, -1),
            "h": hidden,
            "c": hidden,
            "frames": torch.zeros(batch, dtype=torch.int64),
        }

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """States of the backward network: "b" (B, S, H), and "following", b_{t+1}, for its likelihood.

        Each row runs from its own last stack to the first, so that padding is never seen.
        """
        embedded = self._embed(stack_frames(inputs, self.stack))
        mask = frame_mask(lengths, inputs.shape[1], self.stack)
        steps = mask.sum(1)
        with full_precision(embedded):
            states = self.backward_lstm(reverse_steps(embedded, steps))[0]
        states = reverse_steps(states, steps).transpose(0, 1)
        states = states.masked_fill(~mask.unsqueeze(-1), 0.0)
        return self._features(states, torch.zeros_like(states[:, 0]), mask)

    def encode_chunks(self, read: Callable[[int, int], Tensor], frames: int, chunk: int) -> Iterator[Features]:
        """See `Model.encode_chunks`: one backward pass that keeps the states between chunks, then each chunk again."""
        spans = chunks(frames, chunk)

        # h and c after each chunk, in one tensor, as many small ones would fragment memory
        behind = self.first_input.new_zeros(len(spans), 2, 1, len(read(0, 1)), self.config.state)

        def backwards(number: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            embedded = self._embed(stack_frames(read(*spans[number]), self.stack))
            with full_precision(embedded):
                states, memory = self.backward_lstm(embedded.flip(0), tuple(behind[number]))
            return states.flip(0).transpose(0, 1), memory

        for number in reversed(range(1, len(spans))):
            behind[number - 1] = torch.stack(backwards(number)[1])
        for number in range(len(spans)):
            states, _ = backwards(number)
            mask = states.new_ones(states.shape[:2], dtype=torch.bool)
            yield self._features(states, behind[number][0, 0], mask)

    def _features(self, states: Tensor, following: Tensor, mask: Tensor) -> Features:
        """Features from b (B, S, H), and from the b after the last of these (B, H)."""
        features = {"b": Series(states, mask, self.stack)}
        if self.backward_head is not None:
            features["following"] = Series(torch.cat([states[:, 1:], following.unsqueeze(1)], 1), mask, self.stack)
        return features

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
        """See `Model.forward`; auxiliary losses are computed in training mode only."""
        bound, state = super().forward(inputs, target, lengths, features=features, state=state, noise=noise)
        if self.training and self.backward_head is not None:
            following = features["following"].values.transpose(0, 1)
            parameters = self.frame_parameters(self.backward_head, following, inputs.shape[1])
            likelihood = self._log_likelihood(parameters, target, lengths)
            loss = replace(likelihood, values=-likelihood.values)
            bound = replace(bound, auxiliary={**bound.auxiliary, "backward": loss})
        return bound, state

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
        state = self.start(state, batch)
        future = features["b"].values.transpose(0, 1)
        epsilon = self.draw_noise(noise, "z1", self.frames_seen(state, batch), frames).transpose(0, 1)
        term, last = self._transition_term(inputs, state)
        chain = Chain(h=state["h"], c=state["c"])
        raw = chain.mlp("q", self.posterior, future, chain.before("h"))
        z = chain.draw("z", raw, epsilon)
        z, raw, h, c = chain.run(z, raw, *self.transition.extend(chain, term, z))
        h_before = torch.cat([state["h"][None], h[:-1]])
        auxiliary = {}
        if self.training:
            loss = self._reconstruction_loss(z, future).transpose(0, 1)
            auxiliary["zforcing"] = self._series("z1", loss, lengths, frames)
        state = {"stack": last, "h": h[-1], "c": c[-1], "frames": state["frames"] + frames}
        conditionals = self._conditionals(h_before, h, raw, frames, decode)
        return Inference({"z1": z.transpose(0, 1)}, conditionals, state, auxiliary)

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
        term, last = self._transition_term(inputs, state)
        chain = Chain(h=state["h"], c=state["c"])
        with full_precision(inputs):
            h, c = chain.run(*self.transition.extend(chain, term, latents["z1"].transpose(0, 1)))
        h_before = torch.cat([state["h"][None], h[:-1]])
        raw = None
        if features is not None:
            raw = self.posterior(torch.cat([features["b"].values.transpose(0, 1), h_before], -1))
        after = {"stack": last, "h": h[-1], "c": c[-1], "frames": state["frames"] + frames}
        return Inference(latents, self._conditionals(h_before, h, raw, frames, decode), after)

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """See `Model._sample`."""

        def predict(memory: State, choose: Choose) -> tuple[Tensor, State]:
            z = choose("z1", DiagonalGaussian.from_raw(self.prior(memory["h"])))
            (term,) = self.transition.term(self._embed(memory["stack"].unsqueeze(1)))
            h, c = self.transition.step(term, z, memory["h"], memory["c"])
            return self.frame_parameters(self.head, h[None], self.stack), {"h": h, "c": c}

        def update(memory: State, stack: Tensor) -> State:
            return {**memory, "stack": stack}

        return sample_stepwise(self, draws, inputs_of, state, predict, update)

    # -- parts; all time-major (S, B, .) ---------------------------------------------------------------------------

    def _embed(self, stacks: Tensor) -> Tensor:
        """Stacks (B, S, s C) to (S, B, E)."""
        with full_precision(stacks):
            return self.embedding(stacks).transpose(0, 1)

    def _transition_term(self, inputs: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The part of the transition of each step that comes from x_{t-1}, and the last stack (B, s C)."""
        stacks = stack_frames(inputs, self.stack)
        previous = torch.cat([state["stack"].unsqueeze(1), stacks[:, :-1]], 1)
        with full_precision(inputs):
            return self.transition.term(self._embed(previous)), stacks[:, -1]

    def _conditionals(
        self, h_before: Tensor, h: Tensor, raw: Tensor | None, frames: int, decode: bool = True
    ) -> Conditionals:
        prior = DiagonalGaussian.from_raw(self.prior(h_before).transpose(0, 1))
        posterior = {} if raw is None else {"z1": DiagonalGaussian.from_raw(raw.transpose(0, 1))}
        parameters = self.frame_parameters(self.head, h, frames) if decode else None
        return Conditionals(parameters, {"z1": prior}, posterior)

    def _reconstruction_loss(self, z: Tensor, future: Tensor) -> Tensor:
        """-log N(b_t; f(z_t)) in nats, (S, B)."""
        raw_mean, raw_std = self.reconstruction(z).chunk(2, -1)
        raw = torch.cat([raw_mean.tanh(), raw_std], -1)
        of_state = DiagonalGaussian.from_raw(raw, _MINIMUM_STATE_STD)
        return -of_state.log_prob(future.detach()).sum(-1)
