"""Dilated causal convolutions with gated units, as matrix products over time-major sequences.

    past = x[t - d] --\\
                       +--> tanh(.) * sigmoid(.) = z[t] --+--> z Wr + x[t] = the next layer's x[t]
    present = x[t] ---/                                   +--> skip[t] += z Ws

Sequences are (T, B, C): a shift by d steps is then an offset of d * B rows of one matrix, so each convolution is two
plain matrix products, without padding, unfolding or copying. Reference: van den Oord et al. 2016, WaveNet, eq. (2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

# Block size of x in a layer on a CPU, such that intermediate results between two products stay in the cache.
_CACHED_ELEMENTS = 2**19


class GatedLayer(nn.Module):
    """One layer: dilated convolution of two taps, gated unit, residual and skip connection.

    Only the convolution has a bias. Biases of the two 1x1 maps would be redundant: the residual stream only enters
    convolutions, and the skip sum needs one bias for all layers, which belongs to the model.

    Args:
        channels: C of the residual stream, the gated unit and the skip sum.
        dilation: d, steps between the two taps.
        residual: False for the last layer, whose residual output is not used.
    """

    def __init__(self, channels: int, dilation: int, residual: bool = True) -> None:
        super().__init__()
        self.channels = channels
        self.dilation = dilation
        # columns: filter (tanh), then gate (sigmoid)
        self.past = nn.Parameter(torch.empty(channels, 2 * channels))
        self.present = nn.Parameter(torch.empty(channels, 2 * channels))
        self.bias = nn.Parameter(torch.empty(2 * channels))
        self.residual = nn.Parameter(torch.empty(channels, channels)) if residual else None
        self.skip = nn.Parameter(torch.empty(channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise like torch's convolutions: uniform within 1 / sqrt(number of inputs)."""
        for weight, inputs in (
            (self.past, 2 * self.channels),
            (self.present, 2 * self.channels),
            (self.bias, 2 * self.channels),
            (self.residual, self.channels),
            (self.skip, self.channels),
        ):
            if weight is not None:
                nn.init.uniform_(weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def forward(self, x: Tensor, skip: Tensor, history: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Apply the layer to a chunk of the sequence.

        Args:
            x: (T, B, C); products are computed in its type (bfloat16 under autocast).
            skip: (T, B, C) the skip sum so far, in the type of the weights, not a view; changed in place.
            history: (d, B, C) the steps before x; None for zeros, at the beginning of the sequence.

        Returns:
            The x of the next layer (None without residual connection), and `skip` with the contribution of this layer.
        """
        weights = (self.past, self.present, self.bias, self.residual, self.skip)
        return _GatedLayer.apply(x, skip, history, self.dilation, torch.is_grad_enabled(), *weights)

    def next_history(self, x: Tensor, history: Tensor | None) -> Tensor:
        """The last d steps (d, B, C) of `history` followed by `x`; a copy, so that `x` can be freed."""
        missing = self.dilation - x.shape[0]
        if missing <= 0:
            return x[-self.dilation :].clone()
        if history is None:
            return nn.functional.pad(x, (0, 0, 0, 0, missing, 0))
        return torch.cat([history[-missing:].to(x.dtype), x])


class _GatedLayer(torch.autograd.Function):
    """Forward and backward of the layer, block by block of rows, keeping only its input and the two gates.

    The past of rows i .. j - 1 are rows i - shift .. j - 1 - shift, which are in the history below row k:

        rows      i ........ k ........ j
        past      history    x
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        skip: Tensor,
        history: Tensor | None,
        dilation: int,
        save: bool,
        past: Tensor,
        present: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        skip_weight: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        shape, dtype = x.shape, x.dtype
        shift = dilation * shape[1]
        master = (past, present, bias, residual, skip_weight)
        x = x.reshape(-1, shape[-1])
        history = None if history is None else history.to(dtype).reshape(shift, shape[-1])
        past, present, bias, residual, skip_weight = _cast(dtype, *master)
        total = skip.view(-1, shape[-1])

        rows = _block_rows(x)
        gates = x.new_empty(len(x) if save else min(rows, len(x)), bias.numel())
        output = None if residual is None else torch.empty_like(x)
        for i in range(0, len(x), rows):
            j = min(i + rows, len(x))
            k = min(max(shift, i), j)
            gate = gates[i:j] if save else gates[: j - i]
            torch.addmm(bias, x[i:j], present, out=gate)
            if history is not None and i < k:
                gate[: k - i].addmm_(history[i:k], past)
            if k < j:
                gate[k - i :].addmm_(x[k - shift : j - shift], past)
            z = _gated(gate, save)
            if output is not None:
                torch.addmm(x[i:j], z, residual, out=output[i:j])
            _accumulate(total[i:j], z, skip_weight)

        ctx.mark_dirty(skip)
        if save:
            ctx.shift = shift
            ctx.save_for_backward(x, history, gates, *master)
        return None if output is None else output.view(shape), skip

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, grad_skip: Tensor) -> tuple[Tensor | None, ...]:
        x, history, gates, *master = ctx.saved_tensors
        past, present, _, residual, skip_weight = _cast(x.dtype, *master)
        shift, channels, shape = ctx.shift, x.shape[1], grad_skip.shape
        grad_output = None if residual is None else grad_output.reshape(-1, channels)
        grad_total = grad_skip.reshape(-1, channels)
        grad_x = torch.empty_like(x)
        grad_history = torch.zeros_like(history) if ctx.needs_input_grad[2] else None
        grads = [None if weight is None else torch.zeros_like(weight) for weight in master]
        grad_past, grad_present, grad_bias, grad_residual, grad_skip_weight = grads

        rows = _block_rows(x)
        for i in range(0, len(x), rows):
            j = min(i + rows, len(x))
            k = min(max(shift, i), j)
            tanh, sigmoid = gates[i:j].chunk(2, dim=1)
            z = tanh * sigmoid
            down = grad_total[i:j].to(x.dtype)
            grad_z = down @ skip_weight.t()
            _accumulate(grad_skip_weight, z.t(), down)
            if residual is not None:
                grad_z.addmm_(grad_output[i:j], residual.t())
                _accumulate(grad_residual, z.t(), grad_output[i:j])

            grad_gate = torch.empty_like(gates[i:j])
            for first, second, derivative, out in (
                (sigmoid, tanh, torch.ops.aten.tanh_backward.grad_input, grad_gate[:, :channels]),
                (tanh, sigmoid, torch.ops.aten.sigmoid_backward.grad_input, grad_gate[:, channels:]),
            ):
                torch.mul(grad_z, first, out=z)
                derivative(z, second, grad_input=out)

            if residual is None:
                torch.mm(grad_gate, present.t(), out=grad_x[i:j])
            else:
                torch.addmm(grad_output[i:j], grad_gate, present.t(), out=grad_x[i:j])
            _accumulate(grad_present, x[i:j].t(), grad_gate)
            grad_bias += grad_gate.sum(0)
            if history is not None and i < k:
                if grad_history is not None:
                    torch.mm(grad_gate[: k - i], past.t(), out=grad_history[i:k])
                _accumulate(grad_past, history[i:k].t(), grad_gate[: k - i])
            if k < j:
                grad_x[k - shift : j - shift].addmm_(grad_gate[k - i :], past.t())
                _accumulate(grad_past, x[k - shift : j - shift].t(), grad_gate[k - i :])

        if grad_history is not None:
            grad_history = grad_history.view(-1, *shape[1:])
        return grad_x.view(shape), grad_skip, grad_history, None, None, *grads


def _block_rows(x: Tensor) -> int:
    """Rows per block; all rows on other devices than CPUs."""
    return max(_CACHED_ELEMENTS // x.shape[1], 64) if x.device.type == "cpu" else len(x)


def _cast(dtype: torch.dtype, *weights: Tensor | None) -> list[Tensor | None]:
    return [None if weight is None else weight.to(dtype) for weight in weights]


def _gated(gate: Tensor, save: bool) -> Tensor:
    """Gated unit: tanh of the left half times sigmoid of the right half; `gate` is overwritten by the two factors.

    tanh(a) = 2 sigmoid(2a) - 1 takes a quarter of the time of `torch.tanh` in float32. It needs the precision of
    float32: in bfloat16, small values would lose most of their digits.
    """
    wide = gate.float() if gate.dtype.itemsize == 2 else gate
    tanh, sigmoid = wide.chunk(2, dim=1)
    tanh.mul_(2)
    wide.sigmoid_()
    tanh.mul_(2).sub_(1)
    z = (tanh * sigmoid).to(gate.dtype)
    if save and wide is not gate:
        gate.copy_(wide)
    return z


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to the total, in its precision."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
