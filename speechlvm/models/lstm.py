"""LSTM on stacks of frames: the deterministic autoregressive baseline of source A (2.2, 3 and appendix B).

    x_{t-1}  s frames --MLP--> LSTM --> h_t --MLP--> head --> parameters of each frame of x_t (A.2)

Stack t is predicted from stacks before it; its s frames are independent given these. Where the paper is silent:

- The first stack is predicted from a learned start in the place of x_0, and paid for like all others.
- Encoder and decoder have three hidden layers each, as wide as the LSTM, before the output layer.
- Sequences are padded and masked, never packed.

With `experts` the LSTM sees what the adaptive reference knows of x_t in the place of x_{t-1} (`models/experts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from speechlvm.distributions.base import Distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models.ancestral import Choose, sample_stepwise
from speechlvm.models.base import Draws, Model
from speechlvm.models.bound import Bound, Features, Samples, Series, State
from speechlvm.modules.frames import frame_mask, full_precision, stack_frames
from speechlvm.modules.mlp import MLP
from speechlvm.modules.output import OutputLayer
from speechlvm.utils.settings import Settings


class Config(Settings):
    """Sizes of an LSTM."""

    stack: int = Field(gt=0, le=4096, description="s, frames per step")
    hidden: int = Field(default=256, gt=0, le=16384, description="D_d, width of LSTM and MLPs")
    layers: int = Field(default=1, gt=0, le=16, description="LSTM layers")
    mlp_layers: int = Field(default=3, gt=0, le=16, description="hidden layers of encoder and of decoder")
    experts: Literal["adaptive"] | None = Field(
        default=None,
        description="the network sees what the adaptive reference knows of each frame, and its output is a mixture "
        "around the predictions of that (models/experts.py); null: it sees the frames",
    )

    @model_validator(mode="after")
    def _one_frame_ahead(self) -> Config:
        if self.experts and self.stack != 1:
            raise ValueError(f"experts know one frame ahead, and not {self.stack}; expected stack 1")
        return self


class LSTM(Model):
    """See the module.

    Args:
        config: sizes.
        channels: C, input channels.
        distribution: of a frame.
    """

    Config = Config
    reference = "Towards Generative Latent Variable Models for Speech, 2022, a baseline"
    bound = "exact"

    def __init__(self, config: Config, channels: int, distribution: Distribution) -> None:
        super().__init__()
        self.distribution = distribution
        self.channels = seen = channels
        self.stack = self.hop = config.stack
        if config.experts:
            from speechlvm.models.experts import FEATURES, Experts

            self.experts, seen = Experts(), FEATURES
            self.distribution = distribution = self.experts.distribution(distribution)
        else:
            self.start_stack = nn.Parameter(torch.zeros(config.stack * channels))
        self.encoder = MLP(config.stack * seen, config.hidden, config.mlp_layers, observed_input=True)
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, batch_first=True)
        self.decoder = MLP(config.hidden, config.hidden, config.mlp_layers)
        self.head = OutputLayer(config.hidden, config.stack * distribution.parameter_size)
        self.hidden_sizes, self.hidden_chosen = {"h": config.hidden}, ("h",)

    def initial_state(self, batch: int) -> State:
        """The learned start, or that of the experts; zero hidden and cell states."""
        hidden = self.head.weight.new_zeros(batch, self.lstm.num_layers, self.lstm.hidden_size)
        frames = torch.zeros(batch, dtype=torch.int64)
        if self.experts:
            first = {"experts": self.experts.initial_state(batch, hidden.device)}
        else:
            first = {"stack": self.start_stack.expand(batch, -1)}
        return {**first, "h": hidden, "c": hidden, "frames": frames}

    def predict(self, previous: Tensor, state: State) -> tuple[Tensor, State]:
        """Parameters of the stacks that follow given ones.

        Args:
            previous: (B, S, s * C) inputs of the S stacks before those predicted, or what experts know of these.
            state: of the recurrence before them; its own "stack" is not read.

        Returns:
            Parameters (B, S * s, P), and hidden and cell states after the last stack.
        """
        hidden, memory = self._recur(previous, state)
        decoded = self.decoder(hidden)
        with full_precision(decoded):
            parameters = self.head(decoded.to(self.head.weight.dtype))
        batch, steps, _ = parameters.shape
        parameters = parameters.view(batch, steps * self.stack, self.distribution.parameter_size)
        return parameters, memory

    def _recur(self, previous: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs (B, S, hidden) of the uppermost layer, and the memory after them."""
        memory = (state["h"].transpose(0, 1).contiguous(), state["c"].transpose(0, 1).contiguous())
        hidden, (h, c) = self.lstm(self.encoder(previous), memory)
        return hidden, {"h": h.transpose(0, 1), "c": c.transpose(0, 1)}

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
        """See `Model.forward`; noise is not used."""
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        previous, known, last = self._before(inputs, state, lengths=lengths, target=target, features=features)
        parameters, memory = self.predict(previous, state)
        with full_precision(inputs):
            if known is None:
                log_likelihood = self.distribution.log_prob(parameters[:, :frames], target)
            else:
                log_likelihood = self.experts.log_prob(self.distribution, parameters, known, target)
        mask = frame_mask(lengths, frames)
        log_likelihood = log_likelihood.masked_fill(~mask, 0.0)
        state = {**last, **memory, "frames": state["frames"] + frames}
        return Bound(Series(log_likelihood, mask, 1)), state

    def _before(self, inputs: Tensor, state: State, **of_experts: Any) -> tuple[Tensor, Tensor | None, State]:
        """What each stack is predicted from (B, S, .), what experts know, and what is handed on of it.

        Without experts that is the stack before. `of_experts` is more for `Experts.look`.
        """
        if self.experts:
            known, experts = self.experts.look(state["experts"], inputs, **of_experts)
            return self.experts.seen(known).to(inputs.dtype), known, {"experts": experts}
        stacks = stack_frames(inputs, self.stack)
        previous = torch.cat([state["stack"].unsqueeze(1), stacks[:, :-1]], 1)
        return previous, None, {"stack": stacks[:, -1]}

    def hidden_states(
        self, inputs: Tensor, names: Collection[str], state: State | None = None
    ) -> tuple[dict[str, Tensor], State]:
        """See `Model.hidden_states`: "h", the outputs of the uppermost LSTM layer."""
        state = self.start(state, len(inputs))
        previous, _, last = self._before(inputs, state)
        hidden, memory = self._recur(previous, state)
        return {"h": hidden}, {**last, **memory, "frames": state["frames"] + inputs.shape[1]}

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """See `Model._sample`."""
        steps = self.experts.steps(state["experts"]) if self.experts else None

        def predict(memory: State, _: Choose) -> tuple[Tensor, State]:
            if steps is None:
                return self.predict(memory["stack"].unsqueeze(1), memory)
            outputs, memory = self.predict(steps.features.to(self.head.weight.dtype).unsqueeze(1), memory)
            return steps.parameters(outputs), memory

        def update(memory: State, stack: Tensor) -> State:
            if steps is None:
                return {**memory, "stack": stack}
            steps.push(stack)
            return {**memory, "experts": steps.state}

        return sample_stepwise(self, draws, inputs_of, state, predict, update)
