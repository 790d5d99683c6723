"""The fast chain against the plain loop: values and every gradient."""

import pytest
import torch

from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.modules.recurrence import Head, LatentRecurrence, plain_chain

BATCH, LATENT, STATE, HIDDEN, WIDTH = 3, 4, 5, 6, 7


def make_chain(steps, layers, inner_heads, seed=0):
    torch.manual_seed(seed)
    recurrence = LatentRecurrence(LATENT, STATE, HIDDEN, layers).double()

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64).mul_(0.5).requires_grad_()

    head = Head(
        first=leaf(WIDTH, STATE),
        evidence=leaf(BATCH, steps, WIDTH),
        last=leaf(2 * LATENT, WIDTH),
        direct=leaf(2 * LATENT),
        inner=tuple((leaf(WIDTH, WIDTH), leaf(WIDTH)) for _ in range(inner_heads)),
    )
    inputs = (leaf(BATCH, steps, HIDDEN), leaf(BATCH, steps, LATENT).detach(), leaf(BATCH, LATENT), leaf(BATCH, STATE))
    return recurrence, head, inputs


def plain(recurrence, head, inputs):
    def distribution(t, h):
        v = torch.nn.functional.leaky_relu(h @ head.first.t() + head.evidence[:, t])
        for weight, bias in head.inner:
            v = torch.nn.functional.leaky_relu(v @ weight.t() + bias)
        return DiagonalGaussian.from_raw(v @ head.last.t() + head.direct)

    return plain_chain(recurrence, distribution, *inputs)


def numbers(chain):
    return chain.z, chain.h, chain.distribution.mean, chain.distribution.std


def leaves(recurrence, head, inputs):
    context, _, z, h = inputs
    inner = [tensor for layer in head.inner for tensor in layer]
    return [*recurrence.parameters(), head.first, head.evidence, head.last, head.direct, *inner, context, z, h]


CASES = [(1, 1, 0), (2, 1, 0), (7, 1, 0), (5, 3, 0), (5, 1, 2), (6, 2, 1)]


@pytest.mark.parametrize(("steps", "layers", "inner_heads"), CASES)
def test_fast_chain_equals_plain_loop(steps, layers, inner_heads):
    recurrence, head, inputs = make_chain(steps, layers, inner_heads)
    results = []
    for chain in (recurrence(head, *inputs), plain(recurrence, head, inputs)):
        outputs = numbers(chain)
        torch.manual_seed(1)
        loss = sum((output * torch.randn(output.shape, dtype=output.dtype)).sum() for output in outputs)
        results.append((outputs, torch.autograd.grad(loss, leaves(recurrence, head, inputs))))
    for fast, slow in zip(*(result[0] for result in results), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    for fast, slow in zip(*(result[1] for result in results), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-9)


def test_carried_state_continues_the_chain():
    recurrence, head, (context, noise, z, h) = make_chain(8, 2, 1)
    whole = recurrence(head, context, noise, z, h)
    parts = []
    for start, stop in ((0, 3), (3, 8)):
        piece = Head(head.first, head.evidence[:, start:stop], head.last, head.direct, head.inner)
        chain = recurrence(piece, context[:, start:stop], noise[:, start:stop], z, h)
        z, h = chain.z[:, -1], chain.h[:, -1]
        parts.append(chain)
    for pieces, expected in zip(zip(*map(numbers, parts), strict=True), numbers(whole), strict=True):
        torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=0, atol=1e-12)


def test_step_depends_on_the_past_only():
    recurrence, head, (context, noise, z, h) = make_chain(6, 1, 0)
    context = context.detach().requires_grad_()
    chain = recurrence(head, context, noise, z, h)
    gradient = torch.autograd.grad(chain.h[:, 3].sum(), [context, head.evidence])
    for value, last in zip(gradient, (3, 2), strict=True):  # h_t sees context up to t, evidence only through z_{t-1}
        assert value[:, last].abs().min() > 0
        assert value[:, last + 1 :].abs().max() == 0
