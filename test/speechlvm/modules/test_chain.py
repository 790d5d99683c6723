"""The chain's node against the plain loop: values and every gradient."""

import pytest
import torch

from speechlvm.distributions.latent import DiagonalGaussian
from speechlvm.modules import fast_chain
from speechlvm.modules.chain import GRU, LSTM, Dense, Draw, Source, run_plain
from speechlvm.modules.chain_steps import _Product, tensors_of, with_tensors
from speechlvm.modules.fast_chain import run_chain
from speechlvm.modules.mlp import MLP
from speechlvm.modules.recurrence import Chain, GRUCell, LSTMCell
from speechlvm.training.benchmarking import counts

BATCH, LATENT, STATE, HIDDEN = 3, 4, 5, 6


class Leaves:
    """Random float64 leaves, all of which need gradients."""

    def __init__(self):
        self.generator, self.made = torch.Generator().manual_seed(0), []

    def __call__(self, *shape):
        leaf = torch.randn(*shape, dtype=torch.float64, generator=self.generator).mul_(0.5).requires_grad_()
        self.made.append(leaf)
        return leaf


def posterior(leaf, source, steps):
    """Two layers, the first with evidence, and a draw."""
    return [
        Dense("v1", (source,), leaf(steps, BATCH, HIDDEN)),
        Dense("v2", (Source("v1", leaf(HIDDEN, HIDDEN)),), leaf(HIDDEN)),
        Dense("raw", (Source("v2", leaf(2 * LATENT, HIDDEN)),), leaf(2 * LATENT), active=False),
        Draw("z", "raw", leaf(steps, BATCH, LATENT).detach()),
    ]


def gru_weights(leaf):
    return leaf(3 * STATE, STATE), leaf(STATE)


def vrnn(leaf, steps):
    return [
        *posterior(leaf, Source("h", leaf(HIDDEN, STATE), previous=True), steps),
        Dense("u", (Source("z", leaf(HIDDEN, LATENT)),), leaf(HIDDEN)),
        GRU("h", (Source("u", leaf(3 * STATE, HIDDEN)),), leaf(steps, BATCH, 3 * STATE), *gru_weights(leaf)),
    ], {"h": leaf(BATCH, STATE)}


def cwvae(leaf, steps):
    return [
        Dense("u", (Source("z", leaf(HIDDEN, LATENT), previous=True),), leaf(steps, BATCH, HIDDEN)),
        GRU("h", (Source("u", leaf(3 * STATE, HIDDEN)),), leaf(3 * STATE), *gru_weights(leaf)),
        *posterior(leaf, Source("h", leaf(HIDDEN, STATE)), steps),
    ], {"z": leaf(BATCH, LATENT), "h": leaf(BATCH, STATE)}


def srnn(leaf, steps):
    first, *others, draw = posterior(leaf, Source("z", leaf(HIDDEN, LATENT), previous=True), steps)
    raw = others[-1]
    prior = Dense("p", (Source("z", leaf(HIDDEN, LATENT), previous=True),), leaf(steps, BATCH, HIDDEN))
    joint = Dense("raw", (*raw.sources, Source("p", leaf(2 * LATENT, HIDDEN))), raw.term, active=False)
    return [first, prior, *others[:-1], joint, draw], {"z": leaf(BATCH, LATENT)}


def zforcing(leaf, steps):
    return [
        *posterior(leaf, Source("h", leaf(HIDDEN, STATE), previous=True), steps),
        Dense("u", (Source("z", leaf(HIDDEN, LATENT)),), leaf(HIDDEN)),
        LSTM("h", "c", (Source("u", leaf(4 * STATE, HIDDEN)),), leaf(steps, BATCH, 4 * STATE), leaf(4 * STATE, STATE)),
    ], {"h": leaf(BATCH, STATE), "c": leaf(BATCH, STATE)}


def gru(leaf, steps):
    return [GRU("h", (), leaf(steps, BATCH, 3 * STATE), *gru_weights(leaf))], {"h": leaf(BATCH, STATE)}


CHAINS = {
    vrnn: ["z", "h", "raw", "u"],
    cwvae: ["z", "h", "raw"],
    srnn: ["z", "raw", "p"],
    zforcing: ["z", "h", "c", "raw"],
    gru: ["h"],
}


def check(chain, steps):
    """Values and gradients of the node and of the plain loop."""
    leaf = Leaves()
    operations, initial = chain(leaf, steps)
    names = CHAINS[chain]
    results = []
    for run in (run_chain, run_plain):
        values = run(operations, initial, names)
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(values[n].shape, dtype=torch.float64, generator=generator) for n in names]
        loss = sum((values[name] * weight).sum() for name, weight in zip(names, weights, strict=True))
        gradients = torch.autograd.grad(loss, [x for x in leaf.made if x.requires_grad], allow_unused=True)
        results.append((values, gradients))
    (values, gradients), (expected, expected_gradients) = results
    for name in names:
        torch.testing.assert_close(values[name], expected[name], rtol=0, atol=1e-12)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        if other is None:  # the noise, made to need one only as a leaf
            assert gradient is None or not gradient.any()
        else:
            torch.testing.assert_close(gradient, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.__name__)
def test_node_equals_plain_loop(chain, steps):
    check(chain, steps)


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.__name__)
def test_graphs_of_blocks_equal_plain_loop(chain, graphs_on, monkeypatch):
    """One block, two, and a part of a third; in the memory that a batch with NaN has left."""
    graphs_on(("cpu",))
    monkeypatch.setattr(fast_chain, "BLOCK", 4)
    operations, initial = chain(Leaves(), 8)
    spoilt = {name: torch.full_like(value, torch.nan) for name, value in initial.items()}
    sum(value.sum() for value in run_chain(operations, spoilt, CHAINS[chain]).values()).backward()
    for steps in (4, 8, 11):
        check(chain, steps)
    assert fast_chain._make_graphs.cache_info().misses == 1


def test_python_issues_few_operations_for_a_block(graphs_on, monkeypatch):
    """Copies; without graphs there are 29 operations a step, forwards and backwards."""
    graphs_on(("cpu",))
    monkeypatch.setattr(fast_chain, "BLOCK", 8)

    def operations_of(steps):
        leaf = Leaves()
        operations, initial = vrnn(leaf, steps)
        return counts(lambda: run_chain(operations, initial, ["z"])["z"].sum().backward()).operations

    operations_of(fast_chain.BLOCK)
    fewer, more = (operations_of(blocks * fast_chain.BLOCK) for blocks in (1, 3))
    assert more - fewer == 2 * 10


def test_gradients_of_a_value_that_is_no_output_still_flow():
    leaf = Leaves()
    operations, initial = vrnn(leaf, 4)
    (gradient,) = torch.autograd.grad(run_chain(operations, initial, ["h"])["h"].sum(), initial["h"])
    (expected,) = torch.autograd.grad(run_plain(operations, initial, ["h"])["h"].sum(), initial["h"])
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_backward_twice_gives_the_same():
    leaf = Leaves()
    operations, initial = zforcing(leaf, 3)
    total = run_chain(operations, initial, ["h", "z"])
    loss = total["h"].sum() + total["z"].square().sum()
    first = torch.autograd.grad(loss, initial["c"], retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, initial["c"])[0], first)


def test_cells_equal_those_of_torch():
    torch.manual_seed(0)
    x, h, c = (torch.randn(BATCH, n, dtype=torch.float64) for n in (HIDDEN, STATE, STATE))

    def order(weight, old, new):
        return torch.cat([weight.chunk(len(old))[old.index(gate)] for gate in new])

    ours, theirs = GRUCell(HIDDEN, STATE).double(), torch.nn.GRUCell(HIDDEN, STATE).double()
    with torch.no_grad():
        ours.input.weight.copy_(order(theirs.weight_ih, "run", "nru"))
        ours.input.bias.copy_(order(theirs.bias_ih, "run", "nru"))
        ours.input.bias[STATE:] += theirs.bias_hh[: 2 * STATE]
        ours.state.weight.copy_(theirs.weight_hh)
        ours.state_bias.copy_(theirs.bias_hh[2 * STATE :])
    expected = theirs(x, h)
    torch.testing.assert_close(ours.step(ours.input(x), h), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.run(ours.input(x)[None], h)[0], expected, rtol=0, atol=1e-12)

    ours, theirs = LSTMCell(HIDDEN, STATE).double(), torch.nn.LSTMCell(HIDDEN, STATE).double()
    with torch.no_grad():
        ours.input.weight.copy_(order(theirs.weight_ih, "ifgo", "oifg"))
        ours.input.bias.copy_(order(theirs.bias_ih + theirs.bias_hh, "ifgo", "oifg"))
        ours.state.weight.copy_(order(theirs.weight_hh, "ifgo", "oifg"))
    chain = Chain(h=h, c=c)
    values = chain.run(*chain.lstm("h", "c", ours, ours.input(x)[None]))
    for result in (ours.step(ours.input(x), h, c), [v[0] for v in values]):
        for value, expected in zip(result, theirs(x, (h, c)), strict=True):
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("known", [True, False], ids=["known latents", "drawn latents"])
def test_chain_as_models_write_it_is_its_modules_step_by_step(known):
    """Inputs of the chain and tensors mixed in one layer; tensors alone are computed outside of it."""
    torch.manual_seed(0)
    steps = 4
    x, z0 = torch.randn(steps, BATCH, HIDDEN).double(), torch.randn(steps, BATCH, LATENT).double()
    d0 = torch.randn(BATCH, STATE).double()
    posterior = MLP(HIDDEN + STATE, 7, 2, 2 * LATENT).double()
    embedding, cell = MLP(LATENT, 7, 2).double(), GRUCell(7 + HIDDEN, STATE).double()
    chain = Chain(d=d0)
    raw = chain.mlp("q", posterior, x, chain.before("d"))
    z = z0 if known else chain.draw("z", raw, z0)
    phi = chain.mlp("phi", embedding, z)
    d = chain.gru("d", cell, (cell.input, phi, x))
    expected, state = [], d0
    for t in range(steps):
        of_step = posterior(torch.cat([x[t], state], -1))
        latent = z0[t] if known else DiagonalGaussian.from_raw(of_step).sample(z0[t])
        phi_t = embedding(latent)
        state = cell.step(cell.input(torch.cat([phi_t, x[t]], -1)), state)
        expected.append((of_step, latent, phi_t, state))
    for found, value in zip(chain.run(raw, z, phi, d), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(found, torch.stack(value), rtol=0, atol=1e-12)


def test_bfloat16_stays_close_and_keeps_states_in_float32(monkeypatch):
    monkeypatch.setattr("speechlvm.modules.chain_steps._LARGE", 1)
    for chain, names in CHAINS.items():
        leaf = Leaves()
        operations, initial = chain(leaf, 6)
        operations = [_to_float32(op) for op in operations]
        initial = {name: value.detach().float().requires_grad_() for name, value in initial.items()}
        exact = run_chain(operations, initial, names)
        with torch.autocast("cpu", torch.bfloat16):
            half = run_chain(operations, initial, names)
        for name in names:
            assert half[name].dtype == torch.float32
            torch.testing.assert_close(half[name], exact[name], rtol=0.05, atol=0.05)
            assert not torch.equal(half[name], exact[name])
        start = list(initial.values())
        gradients = [torch.autograd.grad(values[names[0]].sum(), start) for values in (half, exact)]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)


def _to_float32(op):
    return with_tensors(op, iter([tensor.detach().float() for tensor in tensors_of(op)]))


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_packed_weights_multiply_like_others(monkeypatch, rows):
    monkeypatch.setattr("speechlvm.modules.chain_steps._LARGE", 1)
    generator = torch.Generator().manual_seed(0)
    weight, x, base = (torch.randn(*shape, generator=generator) for shape in ((7, 5), (rows, 5), (rows, 7)))
    product = _Product(weight, None)
    assert product.packed is not None
    out = torch.empty_like(base)
    product.add(base, x, out)
    torch.testing.assert_close(out, base + x @ weight.t(), rtol=1e-5, atol=1e-5)
