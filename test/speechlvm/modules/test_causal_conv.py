import pytest
import torch
from torch.nn import functional

from speechlvm.modules import causal_conv
from speechlvm.modules.causal_conv import GatedLayer

CHANNELS = 5


def make_layer(dilation, residual=True, seed=0):
    torch.manual_seed(seed)
    layer = GatedLayer(CHANNELS, dilation, residual).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def reference(layer, x, skip, history):
    """The same layer with torch's own convolution, which works on (B, C, T)."""
    if history is None:
        history = x.new_zeros(layer.dilation, *x.shape[1:])
    padded = torch.cat([history, x]).permute(1, 2, 0)
    kernel = torch.stack([layer.past.t(), layer.present.t()], dim=-1)
    gates = functional.conv1d(padded, kernel, layer.bias, dilation=layer.dilation)
    filters, gate = gates.chunk(2, dim=1)
    z = (torch.tanh(filters) * torch.sigmoid(gate)).permute(2, 0, 1)
    return None if layer.residual is None else x + z @ layer.residual, skip + z @ layer.skip


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("with_history", [True, False])
@pytest.mark.parametrize("dilation", [1, 3, 8, 40])
def test_outputs_and_gradients_are_those_of_a_convolution(monkeypatch, dilation, with_history, residual):
    monkeypatch.setattr(causal_conv, "_block_rows", lambda x: 7)  # several blocks, none a multiple of anything
    layer = make_layer(dilation, residual)
    x = torch.randn(23, 2, CHANNELS, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(23, 2, CHANNELS, dtype=torch.float64, requires_grad=True)
    history = torch.randn(dilation, 2, CHANNELS, dtype=torch.float64, requires_grad=True) if with_history else None
    sources = [x, skip, *([history] if with_history else []), *layer.parameters()]

    results = []
    for function in (layer, lambda *arguments: reference(layer, *arguments)):
        output, total = function(x, skip.clone(), history)
        weight = torch.linspace(-1, 2, total.numel(), dtype=torch.float64).view_as(total)
        loss = (total * weight).square().sum() + (0 if output is None else (output * weight).sin().sum())
        results.append([total, *([] if output is None else [output]), *torch.autograd.grad(loss, sources)])
    assert len(results[0]) == len(results[1])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_block_length_changes_no_number(monkeypatch):
    layer = make_layer(4)
    x, skip = torch.randn(2, 50, 3, CHANNELS, dtype=torch.float64).unbind()
    whole = layer(x, skip.clone())
    monkeypatch.setattr(causal_conv, "_block_rows", lambda x: 16)
    for ours, theirs in zip(layer(x, skip.clone()), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_without_gradient_the_result_is_the_same(monkeypatch):
    monkeypatch.setattr(causal_conv, "_block_rows", lambda x: 16)
    layer = make_layer(4)
    x, skip = torch.randn(2, 50, 3, CHANNELS, dtype=torch.float64).unbind()
    expected = layer(x, skip.clone())
    with torch.no_grad():
        output, total = layer(x, skip.clone())
    assert torch.equal(output, expected[0]) and torch.equal(total, expected[1])


def test_second_backward_gives_the_same_gradients():
    layer = make_layer(2)
    x, skip = torch.randn(2, 9, 2, CHANNELS, dtype=torch.float64).unbind()
    output, total = layer(x, skip.clone())
    loss = output.sum() + total.square().sum()
    first = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(layer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("steps", [1, 3, 6, 20])
def test_next_history_is_the_end_of_what_was_seen(steps):
    layer = make_layer(6)
    seen = torch.randn(6 + steps, 2, CHANNELS, dtype=torch.float64)
    assert torch.equal(layer.next_history(seen[6:], seen[:6]), seen[-6:])
    zeros = torch.cat([torch.zeros_like(seen[:6]), seen[6:]])
    assert torch.equal(layer.next_history(seen[6:], None), zeros[-6:])


def test_stretches_with_history_are_the_whole():
    layer = make_layer(6)
    x = torch.randn(31, 2, CHANNELS, dtype=torch.float64)
    whole = torch.cat(layer(x, torch.zeros_like(x)), dim=-1)
    history, parts = None, []
    for part in x.split([2, 11, 1, 17]):
        parts.append(torch.cat(layer(part, torch.zeros_like(part), history), dim=-1))
        history = layer.next_history(part, history)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def test_bfloat16_products_keep_float32_weights_and_sums():
    layer = make_layer(2).float()
    x, skip = torch.randn(2, 64, 2, CHANNELS).unbind()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        output, total = layer(x.to(dtype), skip.clone())
        assert output.dtype == dtype and total.dtype == torch.float32
        grads = torch.autograd.grad(total.square().mean() + output.float().mean(), list(layer.parameters()))
        assert all(grad.dtype == torch.float32 for grad in grads)
        results.append([output.float(), total, *grads])
    for full, half in zip(*results, strict=True):
        assert 0 < (full - half).norm() < 0.01 * full.norm()


def test_small_gates_keep_their_digits_in_bfloat16():
    layer = make_layer(1).float()
    torch.nn.init.zeros_(layer.bias)
    x = 1e-3 * torch.randn(64, 2, CHANNELS)
    zeros = torch.zeros_like(x)
    full, half = (layer(x.to(dtype), zeros.clone())[1] for dtype in (torch.float32, torch.bfloat16))
    assert (full - half).norm() < 0.02 * full.norm()
