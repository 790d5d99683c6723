"""WaveNet: an autoregressive model of stacks of frames without latent variables.

References: van den Oord et al. 2016, WaveNet, for the network; source A (CW-VAE for speech), appendix B, for its size,
the real-valued input and the discretised mixture of logistics.

    x[t-2], x[t-1] -> causal convolution -> 50 gated layers, dilations 1, 2, ..., 512 in each of 5 blocks
                                              |  |  |      skip connections
                                   ReLU -> 1x1 -> ReLU -> head -> parameters of the s frames of step t

Receptive field with these sizes: 5 * 1023 taps of the layers + 1 of the first convolution + 1 = 5117 steps.

With `experts` the taps are of what the adaptive reference knows of steps t - 1 and t (`models/experts.py`).

Where this differs from the published implementation of source A: the skip sum is scaled by sqrt(1 / layers) in scoring
and sampling alike; sampling keeps one queue per layer instead of computing the receptive field anew for each step; the
1x1 maps of the layers have no biases of their own (`modules.causal_conv` says why).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models.base import Draws, Model
from speechlvm.models.bound import Bound, Features, Samples, Series, State
from speechlvm.modules.causal_conv import GatedLayer
from speechlvm.modules.frames import frame_mask, full_precision, stack_frames
from speechlvm.modules.loop import Loop, Tensors, has_graphs
from speechlvm.modules.output import OutputLayer
from speechlvm.modules.queues import DeviceQueues
from speechlvm.utils.settings import Settings

_TAPS = 2
_MOST_WEIGHTS = 10**9
# Steps between two calls of the noise stream and of `log_prob` in sampling.
_SAMPLED_BLOCK_STEPS = 1024


class Config(Settings):
    """Sizes of a WaveNet.

    Attributes:
        stack: s, frames per step.
        channels: Dc, of every layer.
        layers_per_block: layer l of a block has dilation 2^l.
        blocks: repetitions of the block.
        experts: "adaptive": the network sees what the adaptive reference knows of each frame, and its output is a
            mixture around the predictions of that (`models/experts.py`); None: it sees the frames.
    """

    stack: int = Field(default=1, ge=1, le=4096)
    channels: int = Field(default=96, ge=1, le=4096)
    layers_per_block: int = Field(default=10, ge=1, le=14)
    blocks: int = Field(default=5, ge=1, le=50)
    experts: Literal["adaptive"] | None = None

    @model_validator(mode="after")
    def _check_size(self) -> Config:
        weights = 6 * self.channels**2 * self.layers_per_block * self.blocks
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"channels, layers_per_block and blocks together make {weights} weights in the layers; "
                f"expected at most {_MOST_WEIGHTS}"
            )
        if self.experts and self.stack != 1:
            raise ValueError(f"experts know one frame ahead, and not {self.stack}; expected stack 1")
        return self


class WaveNet(Model):
    """WaveNet over stacks of `config.stack` frames.

    Args:
        config: sizes.
        channels: C, input channels of one frame.
        distribution: of one frame.
    """

    Config = Config
    reference = "van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016, arXiv:1609.03499"
    bound = "exact"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.distribution = distribution
        self.channels = seen = channels
        if config.experts:
            from speechlvm.models.experts import FEATURES, Experts

            self.experts, seen = Experts(), FEATURES
            self.distribution = distribution = self.experts.distribution(distribution)
        self.stack = self.hop = config.stack
        dilations = [2**layer for layer in range(config.layers_per_block)] * config.blocks
        self.receptive_field = sum(dilations) + _TAPS  # steps that a prediction depends on
        self.first = nn.Linear(_TAPS * self.stack * seen, config.channels)
        self.layers = nn.ModuleList(
            GatedLayer(config.channels, dilation, residual=index + 1 < len(dilations))
            for index, dilation in enumerate(dilations)
        )
        self.skip_scale = math.sqrt(1 / len(dilations))
        self.skip_bias = nn.Parameter(torch.zeros(config.channels))
        self.hidden = nn.Linear(config.channels, config.channels)
        self.head = OutputLayer(config.channels, self.stack * distribution.parameter_size)
        # the share of a layer in the skip sum; of all layers those are looked at with the longest dilations
        self.hidden_sizes = {f"skip{layer}": config.channels for layer in range(1, len(dilations) + 1)}
        self.hidden_chosen = tuple(self.hidden_sizes)[config.layers_per_block - 1 :: config.layers_per_block]

    def initial_state(self, batch: int) -> State:
        """Zeros, from which the first step is predicted; it is scored like any other."""
        zeros = self.skip_bias.new_zeros
        state = {
            "frames": torch.zeros(batch, dtype=torch.int64),
            "inputs": zeros(batch, _TAPS, self.first.in_features // _TAPS),
        }
        if self.experts:
            state["experts"] = self.experts.initial_state(batch, self.skip_bias.device)
        for index, layer in enumerate(self.layers):
            state[f"layer{index}"] = zeros(batch, layer.dilation, layer.channels)
        return state

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
        """Log-likelihood of every frame given all frames of earlier steps (see `Model.forward`)."""
        batch, frames, _ = target.shape
        skip, known, _, new_state = self._run(inputs, state, lengths=lengths, target=target, features=features)
        with full_precision(inputs):
            parameters = self._output(skip)
            if known is None:
                target = stack_frames(target, self.stack).unflatten(-1, (self.stack, -1)).transpose(0, 1)
                values = self.distribution.log_prob(parameters, target).transpose(0, 1)  # (B, steps, s)
            else:
                values = self.experts.log_prob(self.distribution, parameters.squeeze(2).transpose(0, 1), known, target)
        values = values.reshape(batch, -1)[:, :frames]
        mask = frame_mask(lengths, frames)
        return Bound(Series(values.masked_fill(~mask, 0.0), mask, hop=1)), new_state

    def hidden_states(
        self, inputs: Tensor, names: Collection[str], state: State | None = None
    ) -> tuple[dict[str, Tensor], State]:
        """See `Model.hidden_states`: "skip<layer>", what a layer (from 1) adds to the skip sum."""
        _, _, chosen, state = self._run(inputs, state, names)
        return {name: values.transpose(0, 1) for name, values in chosen.items()}, state

    def _run(
        self, inputs: Tensor, state: State | None, names: Collection[str] = (), **of_experts: Any
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor], State]:
        """Results of a chunk.

        Args:
            inputs, state: of `forward`.
            names: of layers.
            of_experts: more for `Experts.look`.

        Returns:
            The skip sum (steps, B, Dc); what experts know; the shares in the sum of the layers that are named; the
            state after the chunk.
        """
        batch, frames, _ = inputs.shape
        before = self.start(state, batch)
        known, seen, new_state = None, inputs, {"frames": before["frames"] + frames}
        if self.experts:
            known, new_state["experts"] = self.experts.look(before["experts"], inputs, **of_experts)
            seen = self.experts.seen(known).to(inputs.dtype)
        steps = stack_frames(seen, self.stack).transpose(0, 1)
        shifted = torch.cat([before["inputs"].transpose(0, 1), steps])  # element t + 2 is step t
        new_state["inputs"] = shifted[-_TAPS:].transpose(0, 1)
        # what is seen of a step is there after it, but what experts know before it
        shifted = shifted[:-1] if known is None else shifted[1:]
        taps = torch.cat([shifted[:-1], shifted[1:]], dim=-1)
        with full_precision(inputs):
            x = self.first(taps)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        skip = self.skip_bias.repeat(*x.shape[:2], 1)  # a copy even of one step: the layers add to it in place
        chosen = {}
        for index, layer in enumerate(self.layers):
            name = f"layer{index}"
            history = None if state is None else state[name].transpose(0, 1)
            new_state[name] = layer.next_history(x, history).transpose(0, 1)
            if f"skip{index + 1}" in names:
                x, share = layer(x, torch.zeros_like(skip), history)
                chosen[f"skip{index + 1}"] = share
                skip = skip + share
            else:
                x, skip = layer(x, skip, history)
        return skip, known, chosen, new_state

    def _output(self, skip: Tensor) -> Tensor:
        """The output network: (..., Dc) -> parameters (..., s, P)."""
        hidden = torch.relu(self.hidden(torch.relu(skip * self.skip_scale)))
        return self.head(hidden).unflatten(-1, (self.stack, self.distribution.parameter_size))

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """Draw frame by frame with one queue per layer: O(layers) work per step (see `Model._sample`)."""
        graphs = has_graphs(self.skip_bias.device) and not self.experts
        stepper = (DeviceStepper if graphs else Stepper)(self, state)
        batch, steps = len(state["frames"]), -(-draws.frames // self.stack)

        def step(memory: Tensors, given: Tensors) -> tuple[Tensors, Tensors]:
            parameters = stepper.parameters()
            target = draws.target(parameters, given["uniform"])
            stepper.push(inputs_of(target).reshape(batch, -1))
            return {"parameters": parameters, "target": target}, memory

        loop = Loop(step, {}, steps, fixed=draws.choose is None and not self.experts)
        targets, log_likelihoods = [], []
        for start in range(0, steps, _SAMPLED_BLOCK_STEPS):
            count = min(_SAMPLED_BLOCK_STEPS, steps - start)
            uniform = draws.uniform(start * self.stack, count * self.stack)
            uniform = uniform.unflatten(1, (count, self.stack)).transpose(0, 1).contiguous()
            drawn = loop.run({"uniform": uniform})
            log_prob = self.distribution.log_prob(drawn["parameters"], drawn["target"])  # (count, B, s)
            targets.append(drawn["target"].transpose(0, 1).flatten(1, 2))
            log_likelihoods.append(log_prob.transpose(0, 1).flatten(1, 2))
        return Samples(
            torch.cat(targets, 1)[:, : draws.frames],
            torch.cat(log_likelihoods, 1)[:, : draws.frames],
            {"frames": state["frames"] + draws.frames, **stepper.state()},
        )


class Stepper:
    """Step-by-step evaluation of a WaveNet from a state: `parameters` of the next step, then `push` of what it was.

    The weights are copied, so a stepper is for the weights that the model has when it is made.
    """

    @torch.no_grad()
    def __init__(self, model: WaveNet, state: State) -> None:
        self._stack = model.stack
        self._step = 0
        self._taps = state["inputs"].flatten(1).to(model.skip_bias.dtype)
        self._experts = model.experts.steps(state["experts"]) if model.experts else None
        loop = _LayerLoop(model, state)
        self._queues = list(zip(loop.dilations, loop.presents, strict=True))
        with warnings.catch_warnings():
            # torch announces successors of torch.jit that need a compiler at run time
            warnings.simplefilter("ignore", DeprecationWarning)
            self._loop = torch.jit.script(loop)

    @torch.no_grad()
    def parameters(self) -> Tensor:
        """Parameters (B, s, P) of the next step; to be called once before each `push`."""
        if self._experts:
            self._see(self._experts.features)
        parameters = self._loop(self._step, self._taps).unflatten(-1, (self._stack, -1))
        return self._experts.parameters(parameters) if self._experts else parameters

    @torch.no_grad()
    def push(self, inputs: Tensor) -> None:
        """Advance by one step with its inputs (B, s * C)."""
        if self._experts:
            self._experts.push(inputs)
        else:
            self._see(inputs)
        self._step += 1

    def _see(self, inputs: Tensor) -> None:
        self._taps = torch.cat([self._taps[:, inputs.shape[1] :], inputs.to(self._taps.dtype)], dim=1)

    @torch.no_grad()
    def state(self) -> State:
        """State as `WaveNet.forward` returns it, but for the number of frames."""
        state = {"inputs": self._taps.unflatten(1, (_TAPS, -1))}
        if self._experts:
            state["experts"] = self._experts.state
        for index, (dilation, presents) in enumerate(self._queues):
            last = range(self._step - dilation, self._step)
            state[f"layer{index}"] = torch.stack([presents[step % (2 * dilation)] for step in last], dim=1)
        return state


class DeviceStepper:
    """The same in CUDA graphs: in place, and with the pasts of all layers in one product."""

    def __init__(self, model: WaveNet, state: State) -> None:
        self._model, self._layers = model, model.layers
        self._taps = state["inputs"].clone()
        self._queues = DeviceQueues([state[f"layer{index}"] for index in range(len(model.layers))])
        columns = torch.ones_like(model.layers[0].bias)
        columns[: len(model.skip_bias)] = -2  # as in `_LayerLoop`
        self._past, self._present, self._bias = (
            torch.stack([getattr(layer, name) for layer in model.layers]) * columns
            for name in ("past", "present", "bias")
        )
        self._skip = torch.cat([layer.skip for layer in model.layers])

    def parameters(self) -> Tensor:
        """See `Stepper`."""
        x = self._model.first(self._taps.flatten(1))
        gates = torch.baddbmm(self._bias.unsqueeze(1), self._queues.pasts(), self._past)
        inputs, units = [], []
        for gate, present, layer in zip(gates, self._present, self._layers, strict=True):
            inputs.append(x)
            p, q = torch.addmm(gate, x, present).sigmoid_().chunk(2, 1)
            units.append(torch.addcmul(q, p, q, value=-2))
            if layer.residual is not None:
                x = torch.addmm(x, units[-1], layer.residual)
        self._queues.push(inputs)
        return self._model._output(torch.addmm(self._model.skip_bias, torch.cat(units, 1), self._skip))

    def push(self, inputs: Tensor) -> None:
        """See `Stepper`."""
        self._taps.copy_(torch.cat([self._taps[:, 1:], inputs.unsqueeze(1)], 1))

    def state(self) -> State:
        """See `Stepper`."""
        layers = {f"layer{index}": history for index, history in enumerate(self._queues.histories())}
        return {"inputs": self._taps, **layers}


class _LayerLoop(nn.Module):
    """All layers and the output network for one step, as few operations as can be, in a form for `torch.jit.script`.

    The queue of a layer with dilation d is a ring of d slots, each the pair that one product needs. The present of
    step n takes the place of step n - 2d, so that its partner n - d is already beside it; which side is the present
    one alternates every d steps, and the rows of the weights with it. Nothing is ever moved:

        step       n            n + d        n + 2d
        slot    [ n-d | n ]  [ n+d | n ]  [ n+d | n+2d ]

    The filter columns of the weights are scaled by -2: p = sigmoid(-2a) makes tanh(a) = 1 - 2p, and z = q - 2pq. The
    skip connections of all layers are one product at the end.
    """

    def __init__(self, model: WaveNet, state: State) -> None:
        super().__init__()
        like, layers = model.skip_bias.detach(), model.layers
        channels, batch = len(like), len(state["frames"])
        self.last = len(layers) - 1
        self.dilations = [layer.dilation for layer in layers]

        rings = [like.new_empty(layer.dilation, batch, 2 * channels) for layer in layers]
        for index, ring in enumerate(rings):
            ring[:, :, :channels] = state[f"layer{index}"].transpose(0, 1)
        self.pairs = [list(ring.unbind()) for ring in rings]
        # where the input of step n is written: the right half in the first d steps, the left half in the next d
        self.presents = [[*ring[:, :, channels:].unbind(), *ring[:, :, :channels].unbind()] for ring in rings]

        columns = torch.cat([like.new_full((channels,), -2.0), like.new_ones(channels)])
        self.weights = []
        for layer in layers:
            rows = torch.cat([layer.past, layer.present, layer.past]) * columns
            self.weights.append([rows[: 2 * channels], rows[channels:]])  # past first, present first
        self.biases = [layer.bias * columns for layer in layers]
        self.residuals = [layer.skip if layer.residual is None else layer.residual for layer in layers]
        self.residuals = [weight.detach() for weight in self.residuals]

        self.gate = like.new_empty(batch, 2 * channels)
        self.p, self.q = self.gate.chunk(2, dim=1)
        self.all_z = like.new_empty(batch, channels * len(layers))
        self.z = list(self.all_z.split(channels, dim=1))
        self.output = []
        head_weight, head_bias = model.head.as_linear()
        for bias, weight in (
            (model.first.bias, model.first.weight.t()),
            (like * model.skip_scale, torch.cat([layer.skip for layer in layers]) * model.skip_scale),
            (model.hidden.bias, model.hidden.weight.t()),
            (head_bias, head_weight.t()),
        ):
            self.output.append((bias.detach(), weight.detach().contiguous()))

    def forward(self, step: int, taps: Tensor) -> Tensor:
        """Parameters (B, s * P) of step `step` from the two stacks before it."""
        bias, weight = self.output[0]
        torch.addmm(bias, taps, weight, out=self.presents[0][step % 2])
        for index, dilation in enumerate(self.dilations):
            pair, weight = self.pairs[index][step % dilation], self.weights[index][step // dilation % 2]
            torch.addmm(self.biases[index], pair, weight, out=self.gate)
            self.gate.sigmoid_()
            torch.addcmul(self.q, self.p, self.q, value=-2, out=self.z[index])
            if index < self.last:
                present = self.presents[index][step % (2 * dilation)]
                following = self.presents[index + 1][step % (2 * self.dilations[index + 1])]
                torch.addmm(present, self.z[index], self.residuals[index], out=following)
        hidden = self.all_z
        for bias, weight in self.output[1:3]:
            hidden = torch.addmm(bias, hidden, weight).relu_()
        bias, weight = self.output[3]
        return torch.addmm(bias, hidden, weight)
