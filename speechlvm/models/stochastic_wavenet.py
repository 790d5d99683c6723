"""Stochastic WaveNet: a WaveNet with latent variables in its layers.

    generation                                      inference: a WaveNet mirrored in time
    x_{t-1} -> d_0 -> h_1 -> d_1 -> h_2 -> d_2      x_t -> b_2 -> b_1    to the right: dilations 2^l, from the future
                       ^  \\   ^      ^  \\   ^               |      |
                      past  z_1    past  z_2              q(z_2)  q(z_1)    also from h_2, h_1

    d_{t,0} = W x_{t-1}                                 one stack of s frames per step; zeros before the first
    h_{t,l} = f1(d_{t-2^(l-1),l-1}, d_{t,l-1})          (B.4) gated unit with residual connection
    p(z_{t,l} | x_{<t}, z_{<t}, z_{t,<l}) = N(MLP(h_{t,l}))                              (B.3)
    d_{t,l} = f2(h_{t,l}, z_{t,l})                      (B.4) one hidden layer, which the skip connections read
    p(x_t | x_{<t}, z_{<=t}) = head(MLP(sum over layers of skips))
    b_{t,L} = f(x_t),  b_{t,l} = f(b_{t,l+1}, b_{t+2^l,l+1})                             (B.8)
    q(z_{t,l} | z_{<t}, z_{t,<l}, x) = N(MLP(h_{t,l}, b_{t,l}))                          (B.6, B.7)

z_{t,l} depends on other latents only through lower layers, so a layer needs no loop over time in training. Level "z1"
of the interface is the lowest stochastic layer, L - S + 1. Through b_{t,l}, q(z_{t,l}) sees x_t, x_{t+2^l},
x_{t+2*2^l}, ..., x_{t+2^L-2^l} of the present and the future: exactly those whose likelihoods depend on z_{t,l}.

Reference: source B is Lai et al. 2018, "Stochastic WaveNet: a generative latent variable model for sequential data",
arXiv:1806.06116. Where it, or its published code, is ambiguous or wrong:

- Dilations: 2^l for l = 1..L, as printed, never gives 1. Here as in the code, 1, 2, 4, ...: layer l has 2^(l-1).
- Inference: (B.8) mirrors (B.4) exactly for l < L: b_l has the dilation of layer l + 1, 2^(l+1) as printed, 2^l here.
  But b_{t,L} = f(x_t, x_{t+2^(L+1)}) sees an observation that z_{t,L} does not influence, as no dilated layer follows
  layer L: left out. In the code b_l has the dilation of layer l, and z_l influences only half of what b_l sees. Beyond
  an utterance's end b is zero, like d before its beginning.
- Stochastic layers are the top S. The printed {z_l; l < L - S} removed leaves S + 1 of L.
- Each has floor(total / S) dimensions; in the code the total.
- f1 and f2 are unspecified. The code's f2 has neither a residual connection nor a layer in common with the skips; its
  gates have batch normalisation, whose training statistics run over the future and padding. Here d = h + W v, with
  v = f(W u + W z) and u the gated unit in h; skips read u in deterministic layers and v in stochastic ones.
- Posterior: neither relative to the prior nor weighted by precision. Both start near N(0, 1). By default
  (`initialisation`) the first latents of the top layer start as cosine coefficients of the stack.
- The code calls the log standard deviation of x a log-variance; here it is what the output distribution defines.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Conditionals, Features, Inference, Samples, Series, State
from speechlvm.modules.causal_conv import GatedLayer
from speechlvm.modules.frames import frame_mask, full_precision, reverse_steps, stack_frames
from speechlvm.modules.initialise import (
    Initialisation,
    both_signs,
    cosine_transform,
    start_as_standard_normal,
    start_reading,
)
from speechlvm.modules.mlp import MLP
from speechlvm.modules.output import OutputLayer
from speechlvm.modules.queues import queues_of
from speechlvm.utils.settings import Settings

_MOST_WEIGHTS = 10**9


class Config(Settings):
    """Sizes of a Stochastic WaveNet; the defaults are source B's for TIMIT.

    Attributes:
        stack: s, frames per step.
        layers: L; layer l has dilation 2^(l - 1).
        stochastic_layers: S, at the top.
        channels: hidden units of every layer.
        latent_total: latent dimensions per step; each stochastic layer has floor(latent_total / S).
        initialisation: initialisation of the latents of the top layer, see `modules.initialise`.
    """

    stack: int = Field(default=200, ge=1, le=4096)
    layers: int = Field(default=5, ge=1, le=14)
    stochastic_layers: int = Field(default=5, ge=1, le=14)
    channels: int = Field(default=512, ge=1, le=4096)
    latent_total: int = Field(default=500, ge=1, le=65536)
    initialisation: Initialisation = "transform"

    @model_validator(mode="after")
    def _check_sizes(self) -> Config:
        if self.stochastic_layers > self.layers:
            raise ValueError(f"stochastic_layers {self.stochastic_layers}: expected 1 to {self.layers} (layers)")
        if self.latent_total < self.stochastic_layers:
            raise ValueError(f"latent_total {self.latent_total}: expected at least {self.stochastic_layers}")
        matrices = 6 * self.layers + 10 * self.stochastic_layers
        weights = self.channels * (self.channels * matrices + 5 * self.latent_total)
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"channels {self.channels} and others give {weights} weights; expected at most {_MOST_WEIGHTS}"
            )
        return self


class Latent(nn.Module):
    """The latent variable of one layer: prior, posterior, and how it enters the layer (f2).

    Sequences of layers are (T', B, channels), latents (B, T', D).

    Args:
        channels: channels of the layer.
        size: D.
        top: whether this is the top layer, whose d is only used by the skip connection.
    """

    def __init__(self, channels: int, size: int, top: bool) -> None:
        super().__init__()
        self.prior_network = MLP(channels, channels, 1, 2 * size)
        self.posterior_network = MLP(channels, channels, 1, 2 * size)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.enter = nn.Linear(size, channels, bias=False)
        self.skip = nn.Linear(channels, channels, bias=False)
        self.residual = None if top else nn.Linear(channels, channels, bias=False)
        start_as_standard_normal(self.prior_network, self.posterior_network)

    def prior(self, h: Tensor) -> DiagonalGaussian:
        """p(z_t | h_t)."""
        return _gaussian(self.prior_network, h)

    def posterior(self, h: Tensor, evidence: Tensor) -> DiagonalGaussian:
        """q(z_t | h_t, b_t); evidence: (B, T', channels), the input of the hidden layer from b_t."""
        return _gaussian(self.posterior_network, h, evidence.transpose(0, 1))

    def forward(self, h: Tensor, hidden: Tensor, z: Tensor, skip: Tensor) -> tuple[Tensor | None, Tensor]:
        """d_t (None at the top) and the skip sum including this layer, from h_t, W u_t + bias and z_t."""
        v = F.leaky_relu(hidden + self.enter(z.transpose(0, 1)))
        return None if self.residual is None else h + self.residual(v), skip + self.skip(v)


def _gaussian(network: MLP, h: Tensor, evidence: Tensor | float = 0.0) -> DiagonalGaussian:
    """(B, T', D) from h (T', B, channels) and the evidence, which is added in the hidden layer."""
    hidden = F.leaky_relu(network.hidden[0](h) + evidence)
    with full_precision(hidden):
        return DiagonalGaussian.from_raw(network.output(hidden.to(network.output.weight.dtype)).transpose(0, 1))


class Mirror(nn.Module):
    """The inference network: evidence from the observations x_{>=t} for the posterior of each stochastic layer.

    It is a causal WaveNet that reads every utterance backwards from its end.

    Args:
        input: size of a stack.
        channels: channels of all layers.
        dilations: dilations from the top down, those of the generative layers L, L - 1, ...
    """

    def __init__(self, input: int, channels: int, dilations: list[int]) -> None:
        super().__init__()
        self.first = nn.Linear(input, channels)
        self.top = nn.Linear(channels, channels, bias=False)
        self.layers = nn.ModuleList(
            GatedLayer(channels, dilation, residual=index + 1 < len(dilations))
            for index, dilation in enumerate(dilations)
        )

    def forward(self, stacks: Tensor, steps: Tensor) -> list[Tensor]:
        """Evidence (B, T', channels) for each stochastic layer, the top one first.

        Args:
            stacks: (B, T', input).
            steps: (B,) int64, number of real steps of each row.
        """
        stacks = stacks.transpose(0, 1)
        length, batch, _ = stacks.shape
        with full_precision(stacks):
            b = self.first(reverse_steps(stacks, steps))
        evidence = [self.top(F.leaky_relu(b))]
        b = _to_autocast(b)
        for layer in self.layers:
            b, of_layer = layer(b, self.top.weight.new_zeros(length, batch, layer.channels))
            evidence.append(of_layer)
        return [reverse_steps(of_layer, steps).transpose(0, 1) for of_layer in evidence]


def _to_autocast(x: Tensor) -> Tensor:
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


class StochasticWaveNet(LatentModel):
    """See the module docstring.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: output distribution of a frame.
    """

    Config = Config
    reference = "Lai et al., Stochastic WaveNet, 2018, arXiv:1806.06116"
    top_down = False

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.distribution = distribution
        self.channels = channels
        self.stack = self.hop = config.stack
        dilations = [2**layer for layer in range(config.layers)]
        levels = [f"z{level}" for level in range(1, config.stochastic_layers + 1)]
        self.latent_hops = dict.fromkeys(levels, self.stack)
        self.latent_sizes = dict.fromkeys(levels, config.latent_total // config.stochastic_layers)

        width = config.channels
        self.first = nn.Linear(self.stack * channels, width)
        self.layers = nn.ModuleList(GatedLayer(width, dilation) for dilation in dilations)
        self.latents = nn.ModuleList(
            Latent(width, size, top=level == levels[-1]) for level, size in self.latent_sizes.items()
        )
        self.mirror = Mirror(self.stack * channels, width, dilations[: -config.stochastic_layers : -1])
        self.halo = self.stack * sum(layer.dilation for layer in self.mirror.layers)
        self.skip_scale = math.sqrt(1 / config.layers)
        self.skip_bias = nn.Parameter(torch.zeros(width))
        self.hidden = nn.Linear(width, width)
        self.head = OutputLayer(width, self.stack * distribution.parameter_size)
        if config.initialisation == "transform":
            self._start_as_transform_code()

    @torch.no_grad()
    def _start_as_transform_code(self) -> None:
        """Initialise the first latents of the top layer as noisy cosine coefficients of the stack.

        2 m units of each layer on the path carry m numbers (`start_carrying`) and have no other inputs.
        """
        top = self.latents[-1]
        numbers = min(self.hidden.in_features // 4, top.enter.in_features, self.stack * self.channels)
        carried, identity = slice(2 * numbers), torch.eye(2 * numbers)
        posterior = top.posterior_network.hidden[0]
        for weight, rows in (
            (self.mirror.first.weight, both_signs(cosine_transform(self.stack, numbers, self.channels))),
            (self.mirror.top.weight, identity),
            (posterior.weight, torch.zeros(2 * numbers, 0)),  # it carries only the evidence
            (top.enter.weight, both_signs(torch.eye(numbers))),
            (top.skip.weight, identity / self.skip_scale),
            (self.hidden.weight, identity),
            *((latent.skip.weight, torch.zeros(2 * numbers, 0)) for latent in self.latents[:-1]),
        ):
            weight[carried].zero_()
            weight[carried, : rows.shape[1]] = rows.to(weight)
        for bias in (self.mirror.first.bias, posterior.bias, top.bias, self.skip_bias, self.hidden.bias):
            bias[carried].zero_()
        for layer in (*self.layers[: len(self.layers) - len(self.latents)], self.layers[-1]):
            layer.skip[:, carried].zero_()
        start_reading(top.posterior_network.output, numbers)

    def initial_state(self, batch: int) -> State:
        """Zeros, from which the first step is predicted; it is scored like any other."""
        zeros = self.skip_bias.new_zeros
        state = {f"layer{i}": zeros(batch, layer.dilation, layer.channels) for i, layer in enumerate(self.layers)}
        frames = torch.zeros(batch, dtype=torch.int64)
        return {"frames": frames, "stack": zeros(batch, self.stack * self.channels), **state}

    def encode(self, inputs: Tensor, lengths: Tensor) -> Features:
        """Evidence (B, T', channels) for the posterior of each level, under its name."""
        frames = inputs.shape[1]
        mask = frame_mask(lengths, frames, self.stack)
        evidence = self.mirror(stack_frames(inputs, self.stack), mask.sum(1))
        return {
            level: Series(of_level.to(inputs.dtype), mask, self.stack)
            for level, of_level in zip(reversed(self.latent_sizes), evidence, strict=True)
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
        first_frame = self.frames_seen(state, batch)

        def draw(level: str, posterior: DiagonalGaussian) -> Tensor:
            return posterior.sample(self.draw_noise(noise, level, first_frame, frames))

        return self._evaluate(inputs, features, state, draw, decode)

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
        return self._evaluate(inputs, features, state, lambda level, posterior: latents[level], decode)

    def _evaluate(
        self,
        inputs: Tensor,
        features: Features | None,
        state: State | None,
        choose: Callable[[str, DiagonalGaussian | None], Tensor],
        decode: bool = True,
    ) -> Inference:
        """All factors of a chunk.

        Args:
            inputs, features, state: as in `forward`; without features there are no posteriors.
            choose: (level, its posterior) -> z (B, T', D).
        """
        batch, frames, _ = inputs.shape
        before = self.start(state, batch)
        stacks = torch.cat([before["stack"].to(inputs.dtype).unsqueeze(1), stack_frames(inputs, self.stack)], 1)
        after = {"frames": before["frames"] + frames, "stack": stacks[:, -1].clone()}
        latents, prior, posterior = {}, {}, {}

        def convolve(index: int, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
            layer, name = self.layers[index], f"layer{index}"
            history = None if state is None else state[name].transpose(0, 1)
            after[name] = layer.next_history(x, history).transpose(0, 1)
            return layer(x, skip, history)

        def latent(level: str, module: Latent, h: Tensor) -> Tensor:
            prior[level] = module.prior(h)
            if features is not None:
                posterior[level] = module.posterior(h, features[level].values)
            latents[level] = choose(level, posterior.get(level))
            return latents[level]

        skip = self._ascend(stacks[:, :-1].transpose(0, 1), convolve, latent)
        parameters = self._output(skip)[:, :frames] if decode else None
        return Inference(latents, Conditionals(parameters, prior, posterior), after)

    def _ascend(
        self,
        previous: Tensor,
        convolve: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]],
        latent: Callable[[str, Latent, Tensor], Tensor],
    ) -> Tensor:
        """From observations to the sum of skip connections, layer by layer.

        Args:
            previous: (T', B, s * C), the stack before each step.
            convolve: (index of a layer, its x, skip sum) -> its output, new skip sum.
            latent: (level, its module, h) -> z (B, T', D).

        Returns:
            (T', B, channels).
        """
        with full_precision(previous):
            x = self.first(previous)
        x, shape = _to_autocast(x), x.shape[:2]
        skip = self.skip_bias.repeat(*shape, 1)
        lowest = len(self.layers) - len(self.latents)
        for index in range(lowest):
            x, skip = convolve(index, x, skip)
        for index, (level, module) in enumerate(zip(self.latent_sizes, self.latents, strict=True), lowest):
            h, hidden = convolve(index, x, module.bias.repeat(*shape, 1))
            x, skip = module(h, hidden, latent(level, module, h), skip)
        return skip

    def _output(self, skip: Tensor) -> Tensor:
        """Parameters (B, T' * s, P) from the sum of skip connections (T', B, channels)."""
        with full_precision(skip):
            hidden = F.leaky_relu(self.hidden(F.leaky_relu(skip.transpose(0, 1) * self.skip_scale)))
            return self.head(hidden).reshape(skip.shape[1], -1, self.distribution.parameter_size)

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """Draw step by step with one queue per layer: O(layers) work per step (see `Model._sample`)."""
        queues = queues_of([state[f"layer{index}"] for index in range(len(self.layers))])
        # a step of a layer is that of a layer with dilation 1 whose past is what comes from the queue
        layers = [copy.copy(layer) for layer in self.layers]
        for layer in layers:
            layer.dilation = 1

        def convolve(index: int, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
            return layers[index](x, skip, queues.exchange(index, x[0]).unsqueeze(0))

        def predict(memory: State, choose: Choose) -> tuple[Tensor, State]:
            def latent(level: str, module: Latent, h: Tensor) -> Tensor:
                prior = module.prior(h)
                return choose(level, DiagonalGaussian(prior.mean[:, 0], prior.std[:, 0])).unsqueeze(1)

            skip = self._ascend(memory["stack"].unsqueeze(0), convolve, latent)
            return self._output(skip), {}

        before = {name: state[name] for name in ("stack", "frames")}
        samples = sample_stepwise(self, draws, inputs_of, before, predict, lambda _, stack: {"stack": stack})
        samples.state.update({f"layer{index}": history for index, history in enumerate(queues.histories())})
        return samples
