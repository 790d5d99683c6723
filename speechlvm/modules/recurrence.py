"""The fast recurrence of latent variable models: everything that must be sequential, and nothing else.

    u_t = f(W_z z_{t-1} + context_t)              f: leaky ReLU; context_t: what is known beforehand, already projected
    h_t = GRU(u_t, h_{t-1})
    v_t = f(V h_t + evidence_t)                   evidence_t: features of the observations (posterior) or a bias (prior)
    (mean_t, raw_t) = O v_t + direct_t
    z_t = mean_t + std(raw_t) noise_t             std: `positive_std`

Posterior, prior in generation, and either with more hidden layers are the same chain with another `head`. The caller
hoists all that does not depend on z or h (input halves of linear layers, the prior in training, the decoder).

Thousands of steps on batches of a few rows cost overhead, not arithmetic. Hence one autograd node for the whole chain:
14 operations per step forward and 10 backward into preallocated buffers, and each weight's gradient as one product
over all steps. `plain_chain` is the same mathematics in the obvious way.

Models whose posterior comes before the transition (z_t from h_{t-1}, then h_t) are this chain shifted by half a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from speechlvm.distributions.latent import MINIMUM_STD, DiagonalGaussian

SLOPE = 0.01
"""Of the leaky ReLU, as in `MLP`; invertible, so that its gradient follows from its output."""

RAW_OFFSET = math.log(math.expm1(1.0 - MINIMUM_STD))
"""What `positive_std` adds to raw numbers; added before the loop here."""


@dataclass(frozen=True)
class Head:
    """MLP from h_t to (mean_t, raw_t), its first layer's input from elsewhere already added up.

    Attributes:
        first: V, (K, H).
        evidence: (B, T, K) or broadcastable, bias included.
        last: O, (2 D, K').
        direct: (B, T, 2 D) or broadcastable, bias included.
        inner: (weight, bias) of layers between the two.
    """

    first: Tensor
    evidence: Tensor
    last: Tensor
    direct: Tensor
    inner: tuple[tuple[Tensor, Tensor], ...] = field(default=())


@dataclass(frozen=True)
class Chain:
    """What the recurrence went through.

    Attributes:
        z: (B, T, D) sampled latents.
        h: (B, T, H) deterministic states.
        distribution: (B, T, D) what z was drawn from.
    """

    z: Tensor
    h: Tensor
    distribution: DiagonalGaussian


class LatentRecurrence(nn.Module):
    """The transition h_t = GRU(MLP([z_{t-1}, context_t]), h_{t-1}) and its fast evaluation.

    Args:
        latent_size: D.
        state_size: H.
        hidden_size: M, width of the MLP before the GRU.
        layers: of that MLP; the first sees z_{t-1} and the context.
    """

    def __init__(self, latent_size: int, state_size: int, hidden_size: int, layers: int = 1) -> None:
        super().__init__()
        self.latent = nn.Linear(latent_size, hidden_size, bias=False)
        self.inner = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(layers - 1))
        self.cell = nn.GRUCell(hidden_size, state_size)

    def forward(self, head: Head, context: Tensor, noise: Tensor, z: Tensor, h: Tensor) -> Chain:
        """Run over T steps.

        Args:
            head: where z_t is drawn from.
            context: (B, T, M) or broadcastable: added before the first activation, bias included.
            noise: (B, T, D) standard normal.
            z: (B, D) z_0.
            h: (B, H) h_0.
        """
        batch, steps, _ = noise.shape
        width, state_size = head.first.shape
        latent_size = head.last.shape[0] // 2
        raw_offset = torch.cat([noise.new_zeros(latent_size), noise.new_full((latent_size,), RAW_OFFSET)])

        def time_major(term: Tensor, size: int) -> Tensor:
            return term.expand(batch, steps, size).transpose(0, 1).contiguous()

        recurrent_bias = self.cell.bias_hh.expand(batch, steps, 3 * state_size)
        evidence = head.evidence.expand(batch, steps, width)
        outputs = _FastChain.apply(
            len(self.inner),
            time_major(context, self.latent.out_features),
            time_major(torch.cat([recurrent_bias, evidence], -1), 3 * state_size + width),
            time_major(head.direct + raw_offset, head.last.shape[0]),
            time_major(noise, noise.shape[-1]),
            z,
            h,
            self.latent.weight,
            torch.roll(self.cell.weight_ih, state_size, 0),  # (r, u, n) -> (n, r, u)
            torch.roll(self.cell.bias_ih, state_size, 0),
            torch.cat([self.cell.weight_hh, head.first]),
            head.last,
            *(tensor for layer in self.inner for tensor in (layer.weight, layer.bias)),
            *(tensor for layer in head.inner for tensor in layer),
        )
        z, h, raw = (output.transpose(0, 1) for output in outputs)
        mean, raw = raw.chunk(2, -1)
        return Chain(z, h, DiagonalGaussian(mean, MINIMUM_STD + F.softplus(raw)))

    def step(self, z: Tensor, h: Tensor, context: Tensor) -> Tensor:
        """h_t (B, H) from z_{t-1}, h_{t-1} and context_t (B, M)."""
        u = F.leaky_relu(self.latent(z) + context, SLOPE)
        for layer in self.inner:
            u = F.leaky_relu(layer(u), SLOPE)
        return self.cell(u, h)


def plain_chain(
    recurrence: LatentRecurrence,
    distribution: Callable[[int, Tensor], DiagonalGaussian],
    context: Tensor,
    noise: Tensor,
    z: Tensor,
    h: Tensor,
) -> Chain:
    """The chain step by step under autograd, for any distribution of z_t.

    Args:
        recurrence: the transition.
        distribution: (t, h_t) -> that of z_t, (B, D).
        context, noise, z, h: as in `LatentRecurrence.forward`; the context has all T steps.
    """
    track: list[tuple[Tensor, ...]] = []
    for t in range(noise.shape[1]):
        h = recurrence.step(z, h, context[:, t])
        q = distribution(t, h)
        z = q.sample(noise[:, t])
        track.append((z, h, q.mean, q.std))
    z, h, mean, std = (torch.stack(tensors, 1) for tensors in zip(*track, strict=True))
    return Chain(z, h, DiagonalGaussian(mean, std))


def _columns(tensor: Tensor, *sizes: int) -> list[tuple[Tensor, ...]]:
    """Per column group, its T rows (B, size): views made once, not in the loop."""
    return [part.unbind() for part in tensor.split(list(sizes), -1)]


class _FastChain(torch.autograd.Function):
    """All steps as one node; everything is time-major (T, B, .).

    Gates are ordered (n, r, u): the input's part (n, r, u) and the state's part (r, u, n') then overlap in one row
    (n, r, u, n'), whose gradient is one product of the state's gradient with coefficients known before the loop.
    """

    @staticmethod
    def forward(ctx, depth, context, terms, direct, noise, z0, h0, w_z, w_i, b_i, w_h, w_o, *inner):
        (steps, batch, latent), state = noise.shape, h0.shape[1]
        width = terms.shape[2] - 3 * state
        layers = list(zip(inner[::2], inner[1::2], strict=True))
        z, h = context.new_empty(steps, batch, latent), context.new_empty(steps, batch, state)
        gates = context.new_empty(steps, batch, 3 * state)
        onward = torch.empty_like(terms)  # where h_t goes on to: the next gates (r, u, n') and the head's first layer v
        raw = torch.empty_like(direct)
        hidden = [torch.empty_like(context), *(context.new_empty(steps, batch, b.numel()) for _, b in layers)]

        w_z_t, w_i_t, w_h_t, w_o_t = w_z.t(), w_i.t(), w_h.t(), w_o.t()
        outputs = [x.unbind() for x in hidden]
        before = [(w.t(), b, out) for (w, b), out in zip(layers[:depth], outputs[1:], strict=False)]
        after = [(w.t(), b, out) for (w, b), out in zip(layers[depth:], outputs[1 + depth :], strict=True)]
        context_rows, term_rows, direct_rows, noise_rows = (x.unbind() for x in (context, terms, direct, noise))
        z_rows, h_rows, gate_rows, onward_rows, raw_rows = (x.unbind() for x in (z, h, gates, onward, raw))
        n, r, u = _columns(gates, state, state, state)
        ru = gates[..., state:].unbind()
        onward_ru, onward_n, v = _columns(onward, 2 * state, state, width)
        mean, raw_std = _columns(raw, latent, latent)
        scale = torch.empty_like(z0)
        first_gates = torch.addmm(terms[0, :, : 3 * state], h0, w_h_t[:, : 3 * state])
        state_ru, state_n = first_gates.split([2 * state, state], 1)
        z_t, h_t = z0, h0
        for t in range(steps):
            a = F.leaky_relu_(torch.addmm(context_rows[t], z_t, w_z_t, out=outputs[0][t]), SLOPE)
            for weight, bias, out in before:
                a = F.leaky_relu_(torch.addmm(bias, a, weight, out=out[t]), SLOPE)
            torch.addmm(b_i, a, w_i_t, out=gate_rows[t])
            ru[t].add_(state_ru).sigmoid_()
            n_t = n[t].addcmul_(r[t], state_n).tanh_()
            h_t = torch.lerp(n_t, h_t, u[t], out=h_rows[t])
            torch.addmm(term_rows[t], h_t, w_h_t, out=onward_rows[t])
            state_ru, state_n = onward_ru[t], onward_n[t]
            a = F.leaky_relu_(v[t], SLOPE)
            for weight, bias, out in after:
                a = F.leaky_relu_(torch.addmm(bias, a, weight, out=out[t]), SLOPE)
            torch.addmm(direct_rows[t], a, w_o_t, out=raw_rows[t])
            F.softplus(raw_std[t], out=scale).add_(MINIMUM_STD)
            z_t = torch.addcmul(mean[t], scale, noise_rows[t], out=z_rows[t])
        ctx.depth = depth
        first_n = first_gates[:, 2 * state :]
        ctx.save_for_backward(noise, z0, h0, z, h, gates, first_n, onward, raw, w_z, w_i, w_h, w_o, *inner, *hidden)
        return z, h, raw

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_z, grad_h, grad_raw):
        noise, z0, h0, z, h, gates, first_n, onward, raw, w_z, w_i, w_h, w_o, *rest = ctx.saved_tensors
        (steps, batch, latent), state, depth = noise.shape, h0.shape[1], ctx.depth
        width = onward.shape[2] - 3 * state
        layers = (len(rest) - 1) // 3
        weights, hidden, v = rest[: 2 * layers : 2], rest[2 * layers :], onward[..., 3 * state :]
        h_before, z_before = torch.cat([h0[None], h[:-1]]), torch.cat([z0[None], z[:-1]])

        # Known before the loop: d gates (n, r, u, n') = d h * coefficients; d (mean, raw) = d z * spread.
        n, r, u = gates.split(state, -1)
        state_n = torch.cat([first_n[None], onward[:-1, :, 2 * state : 3 * state]])
        by_n = (1 - u) * (1 - n * n)
        coefficients = torch.stack([by_n, by_n * state_n * r * (1 - r), (h_before - n) * u * (1 - u), by_n * r], 2)
        spread = torch.stack([torch.ones_like(noise), raw[..., latent:].sigmoid() * noise], 2)

        # Row t: d gates of step t, and d pre-activation of the head's first layer of step t - 1.
        rows = noise.new_zeros(steps + 1, batch, 4 * state + width)
        d_gates = rows[..., : 4 * state].unflatten(-1, (4, state)).unbind()
        d_gates_in, d_onward = rows[..., : 3 * state].unbind(), rows[1:, :, state:].unbind()
        d_v, d_hidden, d_raw = rows[1:, :, 4 * state :], [torch.empty_like(x) for x in hidden], torch.empty_like(raw)
        d_raw_rows = d_raw.unbind()
        d_raw_pairs, grad_pairs = (x.unflatten(-1, (2, latent)).unbind() for x in (d_raw, grad_raw))

        one = noise.new_ones(())

        def descent(activations, gradients, links):
            """From the last layer to the first: slope, where the gradient goes, the weight that leads further down."""
            slopes = [torch.where(x > 0, one, SLOPE * one).unbind() for x in activations]
            return list(zip(slopes, (x.unbind() for x in gradients), [None, *links], strict=True))[::-1]

        before = descent(hidden[: depth + 1], d_hidden[: depth + 1], weights[:depth])
        after = descent([v, *hidden[depth + 1 :]], [d_v, *d_hidden[depth + 1 :]], weights[depth:])
        d_first, coefficient, spread, u = d_hidden[0].unbind(), coefficients.unbind(), spread.unbind(), u.unbind()
        grad_z, grad_h = grad_z.unbind(), grad_h.unbind()
        d_z, d_h = grad_z[-1], grad_h[-1]
        for t in reversed(range(steps)):
            torch.addcmul(grad_pairs[t], d_z.unsqueeze(1), spread[t], out=d_raw_pairs[t])
            d = torch.mm(d_raw_rows[t], w_o)
            for slope, out, weight in after:
                d = torch.mul(d, slope[t], out=out[t])
                if weight is not None:
                    d = torch.mm(d, weight)
            d_h = torch.addmm(d_h, d_onward[t], w_h)
            torch.mul(d_h.unsqueeze(1), coefficient[t], out=d_gates[t])
            d = torch.mm(d_gates_in[t], w_i)
            for slope, out, weight in before:
                d = torch.mul(d, slope[t], out=out[t])
                if weight is not None:
                    d = torch.mm(d, weight)
            if t:
                d_z = torch.addmm(grad_z[t - 1], d_first[t], w_z)
                d_h = torch.addcmul(grad_h[t - 1], d_h, u[t])
        d_z0 = d_first[0] @ w_z
        d_state0 = rows[0, :, state : 4 * state]
        d_h0 = d_h * u[0] + d_state0 @ w_h[: 3 * state]

        d_terms = rows[1:, :, state:].contiguous()
        d_w_h = _product(d_terms, h)
        d_w_h[: 3 * state] += d_state0.t() @ h0
        d_terms[0, :, : 3 * state] += d_state0
        d_gates_in = rows[:-1, :, : 3 * state]
        inputs = [*hidden[:depth], *([v, *hidden[depth + 1 :]][: layers - depth])]
        d_inner = [g for x, d in zip(inputs, d_hidden[1:], strict=True) for g in (_product(d, x), d.sum((0, 1)))]
        return (
            None, d_hidden[0], d_terms, d_raw, None, d_z0, d_h0, _product(d_hidden[0], z_before),
            _product(d_gates_in, hidden[depth]), d_gates_in.sum((0, 1)), d_w_h,
            _product(d_raw, hidden[-1] if layers > depth else v), *d_inner,
        )  # fmt: skip


def _product(gradient: Tensor, value: Tensor) -> Tensor:
    """A weight's gradient over all steps: (T, B, O), (T, B, I) -> (O, I)."""
    return gradient.flatten(0, 1).t() @ value.flatten(0, 1)
