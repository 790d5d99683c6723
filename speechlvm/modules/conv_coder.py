"""Convolutional coder between a waveform and vectors at lower rates: a ladder encoder and its mirrored decoder.

    frames --8--> hop 8 --8--> hop 64 = e1 --8--> hop 512 = e2 ...       encoder, one pass, looks ahead by its halo
    frames <--8-- hop 8 <--8-- hop 64 <--(z1, h1)                        decoder, causal, carries its past
                               hop 64 <--8-- hop 512 <--(z2, h2)

Both consist of residual blocks similar to those of Conv-TasNet (Luo & Mesgarani 2019): expansion to a multiple of the
width, PReLU, projection, plus a resampled skip connection. Two things differ. The convolution is dense and part of the
expansion, at the lower rate of the block, where one matrix product over stacked vectors is cheaper than a 1x1
convolution and a depthwise one at the higher rate (which are bound by memory, not arithmetic). And there is no
normalisation over time, so results depend neither on padding nor on where an utterance is cut.

Residual branches start small, and `coder_start.py` can initialise the skip connections as codes that are known to work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechlvm.modules.frames import frame_mask, full_precision, stack_frames

LARGEST_FACTOR = 8
CONTEXT = 1
"""Context of a convolution in vectors: one on each side in the encoder, one before in the decoder."""

BRANCH_GAIN = 0.1
"""Initial gain of residual branches, on top of the usual initialisation."""


def factorise(stride: int) -> tuple[int, ...] | None:
    """Strides of convolutions whose product is `stride`, largest first: 64 = 8 x 8, 200 = 8 x 5 x 5.

    None if `stride` has a prime factor above 7.
    """
    factors = []
    while stride > 1:
        factor = next((f for f in range(LARGEST_FACTOR, 1, -1) if stride % f == 0), None)
        if factor is None:
            return None
        factors.append(factor)
        stride //= factor
    return tuple(factors)


def check_stride(name: str, value: int) -> None:
    """Raises ValueError, which names allowed values, if convolutions cannot have a stride between them.

    Args:
        name: of the setting.
        value: stride in frames or steps.
    """
    if factorise(value) is None:
        allowed = [v for v in range(2, 2 * value) if factorise(v)]
        below, above = max(v for v in allowed if v < value), min(v for v in allowed if v > value)
        raise ValueError(
            f"{name} {value}: not a product of convolution strides from 2 to 8; expected a product of 2, 3, 5 and 7, "
            f"for instance {below} or {above}"
        )


def _branch_output(hidden: int, width: int) -> nn.Linear:
    layer = nn.Linear(hidden, width)
    with torch.no_grad():
        layer.weight.mul_(BRANCH_GAIN)
        layer.bias.zero_()
    return layer


def neighbours(x: Tensor, before: int, after: int) -> Tensor:
    """Concatenate each vector with its neighbours: (B, T, C) -> (B, T - before - after, (before + 1 + after) C)."""
    steps = x.shape[1] - before - after
    return torch.cat([x[:, k : k + steps] for k in range(before + 1 + after)], -1)


class DownBlock(nn.Module):
    """Residual block of the encoder, from `stride` vectors to one.

    Args:
        channels: C, channels of the input.
        width: channels of the output.
        hidden: hidden channels.
        stride: number of input vectors per output vector.
        context: context on each side, in output vectors.
    """

    def __init__(self, channels: int, width: int, hidden: int, stride: int, context: int) -> None:
        super().__init__()
        self.stride, self.context = stride, context
        stacked = stride * channels
        self.up = nn.Linear((2 * context + 1) * stacked, hidden)
        self.activation = nn.PReLU()
        self.down = _branch_output(hidden, width)
        self.skip = nn.Identity() if stride == 1 and channels == width else nn.Linear(stacked, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, ceil(T / stride), width), padded with zeros."""
        x = stack_frames(x, self.stride)
        seen = neighbours(F.pad(x, (0, 0, self.context, self.context)), self.context, self.context)
        return self.skip(x) + self.down(self.activation(self.up(seen)))


class LadderEncoder(nn.Module):
    """One pass over the waveform, which gives a vector per step of every level.

    Args:
        channels: C, channels of the waveform.
        width: channels of everything else.
        strides: strides of the convolutions of each level, lowest level first.
        blocks: number of residual blocks at the rate of each level.
        strict: whether a vector sees only the frames of its own step; otherwise also `halo_frames` on each side.
    """

    def __init__(
        self, channels: int, width: int, strides: list[tuple[int, ...]], blocks: int, strict: bool = False
    ) -> None:
        super().__init__()
        self.strict = strict
        self.levels = nn.ModuleList()
        for level, factors in enumerate(strides):
            stage = nn.ModuleList()
            for k, factor in enumerate(factors):
                lowest = level == k == 0
                stage.append(
                    DownBlock(channels if lowest else width, width, (2 if lowest else 4) * width, factor, int(lowest))
                )
            stage.extend(DownBlock(width, width, 4 * width, 1, CONTEXT) for _ in range(blocks))
            self.levels.append(stage)

    @property
    def halo_frames(self) -> tuple[int, ...]:
        """For each level, the number of frames on either side of a step that its vector sees."""
        halos, hop, halo = [], 1, 0
        for stage in self.levels:
            for block in stage:
                hop *= block.stride
                halo += block.context * hop
            halos.append(0 if self.strict else halo)
        return tuple(halos)

    def forward(self, inputs: Tensor, lengths: Tensor) -> list[Tensor]:
        """Features of all levels.

        Args:
            inputs: (B, T, C), zero beyond lengths.
            lengths: (B,) frames.

        Returns:
            (B, T_l, width) for each level. Everything beyond an utterance is zero in every layer, so padding has no
            effect.
        """
        batch, x, hop, features = len(inputs), inputs, 1, []
        for stage in self.levels:
            span = hop
            for block in stage:
                span *= block.stride
            if self.strict:  # each step of the level is a separate sequence
                x = stack_frames(x, span // hop)
                steps = x.shape[1]
                x = x.reshape(batch * steps, span // hop, -1)
                starts = span * torch.arange(steps, device=lengths.device)
                real = (lengths[:, None] - starts).flatten()
            else:
                real = lengths
            for block in stage:
                if hop == 1:
                    with full_precision(x):
                        x = block(x)
                else:
                    x = block(x)
                hop *= block.stride
                x = x * frame_mask(real, x.shape[1] * hop, hop).unsqueeze(-1)
            x = x.reshape(batch, -1, x.shape[-1])
            features.append(x)
        return features


class UpBlock(nn.Module):
    """Residual block of the decoder, from one vector to `stride` vectors; causal.

    Args:
        width: C, channels of input and output.
        hidden: hidden channels.
        stride: number of output vectors per input vector.
    """

    def __init__(self, width: int, hidden: int, stride: int) -> None:
        super().__init__()
        self.up = nn.Linear((CONTEXT + 1) * width, hidden)
        self.activation = nn.PReLU()
        self.down = _branch_output(hidden, stride * width)
        self.skip = nn.Identity() if stride == 1 else nn.Linear(width, stride * width, bias=False)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C) and the vectors before it (B, CONTEXT, C) -> (B, T * stride, C) and the vectors before the next."""
        batch, _, width = x.shape
        extended = torch.cat([past.to(x.dtype), x], 1)
        y = self.skip(x) + self.down(self.activation(self.up(neighbours(extended, CONTEXT, 0))))
        return y.reshape(batch, -1, width), extended[:, -CONTEXT:]


class CausalDecoder(nn.Module):
    """Decoder from the vectors of a level to the rate of the level below.

    Args:
        channels: channels of the vectors of the level.
        width: channels of everything else.
        strides: factors by which the rate rises, one block each.
        blocks: number of residual blocks at the rate of the level.
    """

    def __init__(self, channels: int, width: int, strides: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(UpBlock(width, 4 * width, stride) for stride in (1,) * blocks + strides)

    def initial_past(self, batch: int) -> Tensor:
        """The past of the first vector: zeros (B, blocks, CONTEXT, width)."""
        return self.enter.weight.new_zeros(batch, len(self.blocks), CONTEXT, self.width)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, channels) and the past -> (B, T * stride, width) and the new past."""
        x = self.enter(x)
        pasts = []
        for block, before in zip(self.blocks, past.unbind(1), strict=True):
            x, before = block(x, before)
            pasts.append(before.to(past.dtype))
        return x, torch.stack(pasts, 1) if pasts else past
