"""LSTM on stacks of frames: the deterministic autoregressive baseline of source A (2.2, 3 and appendix B).

    x_{t-1}  s frames --MLP--> LSTM --> h_t --MLP--> head --> parameters of each frame of x_t (A.2)

Stack t is predicted from stacks before it; its s frames are independent given these. Where the paper is silent:

- The first stack is predicted from a learned start in the place of x_0, and paid for like all others.
- Encoder and decoder have three hidden layers each, as wide as the LSTM, before the output layer.
- Sequences are padded and masked, never packed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from pydantic import Field
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
        self.channels = channels
        self.stack = self.hop = config.stack
        self.start_stack = nn.Parameter(torch.zeros(config.stack * channels))
        self.encoder = MLP(config.stack * channels, config.hidden, config.mlp_layers, observed_input=True)
        self.lstm = nn.LSTM(config.hidden, config.hidden, config.layers, batch_first=True)
        self.decoder = MLP(config.hidden, config.hidden, config.mlp_layers)
        self.head = OutputLayer(config.hidden, config.stack * distribution.parameter_size)
        self.hidden_sizes, self.hidden_chosen = {"h": config.hidden}, ("h",)

    def initial_state(self, batch: int) -> State:
        """The learned start, zero hidden and cell states."""
        hidden = self.start_stack.new_zeros(batch, self.lstm.num_layers, self.lstm.hidden_size)
        return {
            "stack": self.start_stack.expand(batch, -1),
            "h": hidden,
            "c": hidden,
            "frames": torch.zeros(batch, dtype=torch.int64, device=self.start_stack.device),
        }

    def predict(self, previous: Tensor, state: State) -> tuple[Tensor, State]:
        """Parameters of the stacks that follow given ones.

        Args:
            previous: (B, S, s * C) inputs of the S stacks before those predicted.
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
        """See `Model.forward`; features and noise are not used."""
        batch, frames, _ = inputs.shape
        state = self.start(state, batch)
        previous, last = self._shift(inputs, state)
        parameters, memory = self.predict(previous, state)
        with full_precision(inputs):
            log_likelihood = self.distribution.log_prob(parameters[:, :frames], target)
        mask = frame_mask(lengths, frames)
        log_likelihood = log_likelihood.masked_fill(~mask, 0.0)
        state = {"stack": last, **memory, "frames": state["frames"] + frames}
        return Bound(Series(log_likelihood, mask, 1)), state

    def _shift(self, inputs: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """The stack before each stack (B, S, s * C), and the last one."""
        stacks = stack_frames(inputs, self.stack)
        return torch.cat([state["stack"].unsqueeze(1), stacks[:, :-1]], 1), stacks[:, -1]

    def hidden_states(
        self, inputs: Tensor, names: Collection[str], state: State | None = None
    ) -> tuple[dict[str, Tensor], State]:
        """See `Model.hidden_states`: "h", the outputs of the uppermost LSTM layer."""
        state = self.start(state, len(inputs))
        previous, last = self._shift(inputs, state)
        hidden, memory = self._recur(previous, state)
        return {"h": hidden}, {"stack": last, **memory, "frames": state["frames"] + inputs.shape[1]}

    def _sample(self, draws: Draws, inputs_of: Callable[[Tensor], Tensor], state: State) -> Samples:
        """See `Model._sample`."""

        def predict(memory: State, _: Choose) -> tuple[Tensor, State]:
            return self.predict(memory["stack"].unsqueeze(1), memory)

        def update(memory: State, stack: Tensor) -> State:
            return {**memory, "stack": stack}

        return sample_stepwise(self, draws, inputs_of, state, predict, update)
