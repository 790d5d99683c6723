"""STCN and STCN-dense: stochastic temporal convolutional networks.

    x[<=t] -> 1x1 map -> block 1 -> d_1[t] -> block 2 -> d_2[t] -> block 3 -> d_3[t]      gated dilated causal layers
                                       |                   |                   |
                                       v                   v                   v        prior of z_l[t]: d_l[t-1]
                                    z_1[t] <------------ z_2[t] <----------- z_3[t]     posterior:       d_l[t]
                                       |                   :                   :
                                       v                   v   (dense only)    v
            the s frames of x[t] <- head <- causal layers over z[<=t]

    p(z_l[t] | x[<t], z_{l+1}[t])  = N(prior_l(d_l[t-1], z_{l+1}[t]))
    q(z_l[t] | x[<=t], z_{l+1}[t]) = normalised product of the prior and N(evidence_l(d_l[t], z_{l+1}[t]))
    p(x[t] | z[<=t]),  z = z_1 or, dense, (z_1, ..., z_L)

Reference: Aksan & Hilliges 2019, "STCN: Stochastic Temporal Convolutional Networks", arXiv:1902.06568; results quoted
in source A ("Towards Generative Latent Variable Models for Speech", 2022), Table 4. Their "large" has 512 channels
instead of 256 and is otherwise the same, by the authors' configurations.

Given x, z[t] does not depend on latents of other steps, so scoring is parallel over time. As published, the decoder
sees only latents: information from the past about x[t] reaches it through the priors of the latents. The output layers
widen its view to z[t - output_layers .. t]. Inside, sequences are time-major, (steps, B, channels).

Differences from the published implementation, which is incomplete or wrong in places:

- It takes the variance of the product of prior and evidence for its standard deviation; ours is the product.
- It draws z_l anew for each of its uses (prior and posterior below, decoder), so its sum of terms is not a bound on the
  likelihood of any single model. Ours draws once.
- It clips standard deviations to [0.001, 5]; ours are smooth and have only the lower bound. Mean and standard deviation
  share the two hidden layers, which have leaky ReLUs.
- Before the first step there is a learned d_l[0] instead of the response of the layers to a step of zeros; the first
  step is scored like all others.
- Layers whose input and output sizes differ (the first of the encoder and of the output network) are a 1x1 map followed
  by an ordinary layer; the 1x1 maps inside layers have no bias (`modules.causal_conv` says why).
- By default (`initialisation`) the first dimensions of z_1 start as cosine coefficients of the stack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.latent import DiagonalGaussian, precision_weighted
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, LatentModel
from speechlvm.models.bound import Conditionals, Features, Inference, Samples, State
from speechlvm.modules.causal_conv import GatedLayer
from speechlvm.modules.frames import full_precision, stack_frames
from speechlvm.modules.initialise import Initialisation, both_signs, cosine_transform, start_carrying, start_reading
from speechlvm.modules.mlp import MLP
from speechlvm.modules.output import OutputLayer
from speechlvm.modules.queues import queues_of
from speechlvm.utils.settings import Settings

_MOST_WEIGHTS = 10**9
_MOST_REMEMBERED = 10**8
_LATENT_HIDDEN_LAYERS = 2

# The past reaches the decoder only through the means of the priors. With initial standard deviations of 1 it would be
# lost in noise, and the KL would make the network ignore the latents: on speech, after 150 updates with 96 channels and
# s = 64, 15.3 bits per frame instead of 14.6 (marginal distribution: 15.6). So priors start narrow (0.13), and the
# evidence wider (0.27): the product stays close to the prior, with a small KL, until it is informative. The dimensions
# of z_1 that start as a transform code (`_start_as_transform_code`) are informative, so their priors start wider.
INITIAL_RAW_STD_PRIOR = -2.5
INITIAL_RAW_STD_EVIDENCE = -1.7
INITIAL_RAW_STD_PRIOR_OF_COEFFICIENTS = -1.0  # 0.49; coefficients of speech have 0.57


class Config(Settings):
    """Sizes of an STCN.

    Attributes:
        stack: s, frames per step.
        channels: filters of all layers, and width of all other hidden layers.
        latents: sizes of the latents, lowest level first; one block of layers each.
        dilations: dilations of the layers of a block.
        dense: whether the decoder sees the latents of all levels instead of only the lowest.
        output_layers: causal layers between the latents and the head.
        initialisation: initialisation of the latents, see `modules.initialise`.
    """

    stack: int = Field(default=200, ge=1, le=4096)
    channels: int = Field(default=256, ge=1, le=4096)
    latents: list[Annotated[int, Field(ge=1, le=4096)]] = Field([256, 128, 64, 32, 16], min_length=1, max_length=16)
    dilations: list[Annotated[int, Field(ge=1, le=8192)]] = Field([1, 2, 4, 8, 16], min_length=1, max_length=16)
    dense: bool = True
    output_layers: int = Field(default=5, ge=1, le=64)
    initialisation: Initialisation = "transform"

    @model_validator(mode="after")
    def _check_size(self) -> Config:
        blocks = len(self.latents)
        weights = 5 * self.channels**2 * (blocks * len(self.dilations) + self.output_layers)
        remembered = self.channels * (blocks * sum(self.dilations) + self.output_layers)
        for what, value, most in (
            ("weights in the layers", weights, _MOST_WEIGHTS),
            ("remembered numbers per sequence", remembered, _MOST_REMEMBERED),
        ):
            if value > most:
                raise ValueError(
                    f"channels {self.channels}, {blocks} latents, dilations {self.dilations} and output_layers "
                    f"{self.output_layers} together make {value} {what}; expected at most {most}"
                )
        return self


class LatentNetwork(nn.Module):
    """Gaussian of the latents of one level given a deterministic vector and, except at the top, the latents above.

    Args:
        channels: size of the deterministic vector and of the hidden layers.
        above: size of the latents above; 0 at the top.
        size: D_l, size of the latents.
        raw_std: initial raw standard deviation (`DiagonalGaussian.from_raw`).
    """

    def __init__(self, channels: int, above: int, size: int, raw_std: float) -> None:
        super().__init__()
        self.hidden = MLP(channels + above, channels, _LATENT_HIDDEN_LAYERS)
        self.output = nn.Linear(channels, 2 * size)
        with torch.no_grad():
            self.output.weight[size:].mul_(0.1)
            self.output.bias[:size].zero_()
            self.output.bias[size:].fill_(raw_std)

    def forward(self, d: Tensor, above: Tensor | None) -> DiagonalGaussian:
        """d (..., channels), above (..., D_{l+1}) -> (..., D_l)."""
        hidden = self.hidden(d if above is None else torch.cat([d, above], -1))
        with full_precision(hidden):
            return DiagonalGaussian.from_raw(self.output(hidden.to(self.output.weight.dtype)))


class CausalStack(nn.Module):
    """Gated causal layers with residual connections.

    The residual connection is the skip sum of `GatedLayer`, initialised with the input of the layer: it stays in the
    precision of the weights under autocast.

    Args:
        channels: channels of all layers.
        dilations: dilations of the layers, first to last.
    """

    def __init__(self, channels: int, dilations: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedLayer(channels, dilation, residual=False) for dilation in dilations)

    def initial_histories(self, batch: int) -> list[Tensor]:
        """Zeros (B, d, channels) for each layer."""
        return [layer.bias.new_zeros(batch, layer.dilation, layer.channels) for layer in self.layers]

    def forward(self, x: Tensor, histories: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs (T, B, C) of all layers for x (T, B, C), and the new histories."""
        autocast = torch.is_autocast_enabled(x.device.type)
        outputs, after = [], []
        for layer, history in zip(self.layers, histories, strict=True):
            history = history.transpose(0, 1)
            after.append(layer.next_history(x, history).transpose(0, 1))
            taps = x.to(torch.get_autocast_dtype(x.device.type)) if autocast else x
            x = layer(taps, x.clone(), history)[1]
            outputs.append(x)
        return outputs, after


class CausalStepper:
    """Step-by-step evaluation of a `CausalStack`, with a queue of the last d inputs of each layer.

    Args:
        stack: the layers.
        histories: histories from `CausalStack.forward`.
    """

    def __init__(self, stack: CausalStack, histories: list[Tensor]) -> None:
        self._queues, self._layers = queues_of(histories), []
        self.histories = self._queues.histories  # as returned by `CausalStack.forward`
        for layer in stack.layers:
            # filter weights times -2: with p = sigmoid(-2 a), tanh(a) = 1 - 2 p takes a third of the time of tanh
            columns = torch.ones_like(layer.bias)
            columns[: layer.channels] = -2
            convolution = [weight * columns for weight in (layer.past, layer.present, layer.bias)]
            self._layers.append((*convolution, layer.skip))

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Outputs (B, C) of all layers for the next step x (B, C)."""
        outputs = []
        for index, (past, present, bias, skip) in enumerate(self._layers):
            of_past = torch.addmm(bias, self._queues.exchange(index, x), past)
            p, q = torch.addmm(of_past, x, present).sigmoid_().chunk(2, 1)
            x = torch.addmm(x, torch.addcmul(q, p, q, value=-2), skip)
            outputs.append(x)
        return outputs


class STCN(LatentModel):
    """See the module.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: output distribution of a frame.

    Attributes:
        receptive_field: steps that the prior of a step depends on: x[t - receptive_field] .. x[t - 1].
        latent_field: steps of latents that the likelihood of a step depends on: z[t - latent_field + 1] .. z[t].
    """

    Config = Config
    reference = "Aksan and Hilliges, STCN: Stochastic Temporal Convolutional Networks, 2019, arXiv:1902.06568"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.config, self.channels, self.distribution = config, channels, distribution
        self.stack = self.hop = config.stack
        width, sizes = config.channels, config.latents
        names = [f"z{level}" for level in range(1, len(sizes) + 1)]
        self.latent_sizes = dict(zip(names, sizes, strict=True))
        self.latent_hops = dict.fromkeys(names, config.stack)
        self.receptive_field = len(sizes) * sum(config.dilations) + 1
        self.latent_field = config.output_layers + 1

        self.initial = nn.Parameter(torch.zeros(len(sizes), width))
        self.first = nn.Linear(config.stack * channels, width)
        self.encoder = CausalStack(width, config.dilations * len(sizes))
        pairs = list(zip(sizes, [*sizes[1:], 0], strict=True))
        self.priors = nn.ModuleList(LatentNetwork(width, above, size, INITIAL_RAW_STD_PRIOR) for size, above in pairs)
        self.evidence = nn.ModuleList(
            LatentNetwork(width, above, size, INITIAL_RAW_STD_EVIDENCE) for size, above in pairs
        )
        self.join = nn.Linear(sum(sizes) if config.dense else sizes[0], width)
        self.decoder = CausalStack(width, [1] * config.output_layers)
        self.head = OutputLayer(width, config.stack * distribution.parameter_size)
        if config.initialisation == "transform":
            self._start_as_transform_code()

    @torch.no_grad()
    def _start_as_transform_code(self) -> None:
        """Initialise the first of z_1 as noisy cosine coefficients of the stack, which the decoder can read."""
        numbers = min(self.config.channels // 4, self.config.latents[0], self.stack * self.channels)
        identity = torch.eye(numbers)
        for layer, rows in ((self.first, cosine_transform(self.stack, numbers, self.channels)), (self.join, identity)):
            layer.weight[:numbers].zero_()
            layer.weight[:numbers, : rows.shape[1]] = rows.to(layer.weight)
            layer.bias[:numbers].zero_()
        for gated in (*self.encoder.layers, *self.decoder.layers):  # the residual stream passes them on
            gated.skip[:, :numbers].zero_()
        start_carrying(self.evidence[0].hidden, both_signs(identity))
        start_reading(self.evidence[0].output, numbers)
        size = self.config.latents[0]
        self.priors[0].output.bias[size : size + numbers] = INITIAL_RAW_STD_PRIOR_OF_COEFFICIENTS

    def initial_state(self, batch: int) -> State:
        """The learned start of the deterministic representations, and empty histories."""
        d = list(self.initial.unsqueeze(1).expand(-1, batch, -1))
        frames = torch.zeros(batch, dtype=torch.int64)
        return self._state(frames, d, self.encoder.initial_histories(batch), self.decoder.initial_histories(batch))

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

        def draw(level: str, _prior: DiagonalGaussian, posterior: DiagonalGaussian) -> Tensor:
            return posterior.sample(self.draw_noise(noise, level, first, frames).transpose(0, 1).to(inputs.dtype))

        return self._run(inputs, draw, state, posterior=True, decode=decode)

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

        def given(level: str, _prior: DiagonalGaussian, _posterior: DiagonalGaussian | None) -> Tensor:
            return latents[level].transpose(0, 1)

        return self._run(inputs, given, state, posterior=features is not None, decode=decode)

    def _run(
        self, inputs: Tensor, choose: Callable[..., Tensor], state: State | None, posterior: bool, decode: bool = True
    ) -> Inference:
        """Evaluate all factors; `choose` maps name, prior and posterior of a level to latents (steps, B, D_l)."""
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        steps = stack_frames(inputs, self.stack).transpose(0, 1)
        with full_precision(inputs):
            x = self.first(steps)
        outputs, encoder = self.encoder(x, self._histories(state, "encoder"))
        d = self._of_blocks(outputs)
        before = [
            torch.cat([state[name].unsqueeze(0), d_l[:-1]]) for name, d_l in zip(self._names("d"), d, strict=True)
        ]
        latents, priors, posteriors = self._descend(before, d if posterior else None, choose)
        parameters, decoder = None, self._histories(state, "decoder")
        if decode:
            with full_precision(inputs):
                x = self.join(self._seen(latents))
            outputs, decoder = self.decoder(x, decoder)
            top = outputs[-1].transpose(0, 1)
            with full_precision(top):
                parameters = self.head(top).reshape(batch, -1, self.distribution.parameter_size)[:, :frames]
        conditionals = Conditionals(parameters, _batch_first(priors), _batch_first(posteriors))
        after = self._state(state["frames"] + frames, [d_l[-1] for d_l in d], encoder, decoder)
        return Inference({level: z.transpose(0, 1) for level, z in latents.items()}, conditionals, after)

    def _descend(
        self, before: list[Tensor], now: list[Tensor] | None, choose: Callable[..., Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, DiagonalGaussian], dict[str, DiagonalGaussian]]:
        """From the top level to the lowest.

        Args:
            before: d_l[t-1] (..., channels) of each level.
            now: d_l[t] (..., channels) of each level; None: no posteriors.
            choose: see `_run`.

        Returns:
            Latents, priors and posteriors of each level, z1 first.
        """
        latents, priors, posteriors, above = {}, {}, {}, None
        for index, level in reversed(list(enumerate(self.latent_sizes))):
            priors[level] = self.priors[index](before[index], above)
            if now is not None:
                evidence = self.evidence[index](now[index], above)
                posteriors[level] = precision_weighted(priors[level], evidence)
            latents[level] = above = choose(level, priors[level], posteriors.get(level))
        # the lowest level first
        return tuple(dict(reversed(values.items())) for values in (latents, priors, posteriors))

    def _seen(self, latents: dict[str, Tensor]) -> Tensor:
        """The latents of a step that the decoder sees."""
        return torch.cat(list(latents.values()), -1) if self.config.dense else latents["z1"]

    def _of_blocks(self, outputs: list[Tensor]) -> list[Tensor]:
        """d_1 .. d_L: the outputs of the last layer of each block."""
        depth = len(self.config.dilations)
        return outputs[depth - 1 :: depth]

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """Draw step by step with one queue per layer: O(layers) work per step (see `Model._sample`)."""
        encoder = CausalStepper(self.encoder, self._histories(state, "encoder"))
        decoder = CausalStepper(self.decoder, self._histories(state, "decoder"))

        def predict(d: State, choose: Choose) -> tuple[Tensor, State]:
            latents, *_ = self._descend(list(d.values()), None, lambda level, prior, _posterior: choose(level, prior))
            top = decoder(self.join(self._seen(latents)))[-1]
            return self.head(top).unflatten(1, (self.stack, -1)), d

        def update(d: State, stack: Tensor) -> State:
            return dict(zip(d, self._of_blocks(encoder(self.first(stack))), strict=True))

        d = {name: state[name] for name in self._names("d")}
        samples = sample_stepwise(self, draws, inputs_of, {**d, "frames": state["frames"]}, predict, update)
        samples.state.update(zip(self._names("encoder"), encoder.histories(), strict=True))
        samples.state.update(zip(self._names("decoder"), decoder.histories(), strict=True))
        return samples

    def _names(self, kind: str) -> list[str]:
        """Names in the state: "d" for levels, "encoder" and "decoder" for layers."""
        count = len(self.latent_sizes) if kind == "d" else len(getattr(self, kind).layers)
        return [f"{kind}{number}" for number in range(1, count + 1)]

    def _state(self, frames: Tensor, d: list[Tensor], encoder: list[Tensor], decoder: list[Tensor]) -> State:
        state = {"frames": frames}
        for kind, values in (("d", d), ("encoder", encoder), ("decoder", decoder)):
            state.update(zip(self._names(kind), values, strict=True))
        return state

    def _histories(self, state: State, kind: str) -> list[Tensor]:
        return [state[name] for name in self._names(kind)]


def _batch_first(factors: dict[str, DiagonalGaussian]) -> dict[str, DiagonalGaussian]:
    return {name: DiagonalGaussian(q.mean.transpose(0, 1), q.std.transpose(0, 1)) for name, q in factors.items()}
