"""Helpers for frames, steps and precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def frame_mask(lengths: Tensor, frames: int, hop: int = 1) -> Tensor:
    """(B, ceil(frames / hop)) bool: True for elements with at least one frame within the length of the row."""
    steps = -(-frames // hop)
    starts = torch.arange(steps, device=lengths.device) * hop
    return starts[None, :] < lengths[:, None]


def stack_frames(values: Tensor, stack: int) -> Tensor:
    """Stack s frames per step: (B, T, C) -> (B, ceil(T / s), s * C); the last stack is padded with zeros."""
    batch, frames, channels = values.shape
    missing = -frames % stack
    if missing:
        values = nn.functional.pad(values, (0, 0, 0, missing))
    return values.reshape(batch, (frames + missing) // stack, stack * channels)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context that disables autocast: first layers, output heads and distributions run in float32.

    Near 0.9, the rounding error of bf16 is dozens of 16-bit codes.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def reverse_steps(values: Tensor, steps: Tensor) -> Tensor:
    """Reverse each row within its own length, for recurrences that run from right to left.

    Args:
        values: (S, B, N), time-major.
        steps: (B,) int64, length of each row; padding stays in place.
    """
    t = torch.arange(len(values), device=values.device)[:, None]
    return _Reverse.apply(values, torch.where(t < steps, steps - 1 - t, t))


class _Reverse(torch.autograd.Function):
    """Select rows by an index that is its own inverse: the gradient is the same selection, without a scatter-add."""

    @staticmethod
    def forward(ctx, values, index):
        ctx.save_for_backward(index)
        return values[index, torch.arange(values.shape[1], device=values.device)]

    @staticmethod
    def backward(ctx, gradient):
        (index,) = ctx.saved_tensors
        return gradient[index, torch.arange(gradient.shape[1], device=gradient.device)], None
