"""What prior, posterior and likelihood of a step depend on, by gradient: no more and no less than the factorisations.

At fixed latents (`LatentModel.conditionals`) the gradient of every factor with respect to every step of the inputs and
of every level is exactly zero where the factorisation has no edge, and not zero wherever it has one. Equation numbers
(A.n) and (B.n) are those of sources A and B.
"""

import torch

from speechlvm.models import MODELS

STEPS = 12


def nothing(t):
    return []


def past(t):
    return range(t)


def last(t):
    return range(max(t - 1, 0), t)


def own(t):
    return [t]


def until(t):
    return range(t + 1)


def everything(t):
    return range(STEPS)


def within(before, after=0, hop=1):
    """From `before` steps before the first of the `hop` steps of t, to `after` steps after the last."""
    return lambda t: range(max(t * hop - before, 0), min((t + 1) * hop + after, STEPS))


def receptive_field(steps):
    return lambda t: range(max(t - steps, 0), t)


def every(hop, rule):
    """Steps of a level that is `hop` times slower than that of t."""
    return lambda t: rule(t // hop)


def clockwork(levels, factor, seen):
    """(A.9), (A.10): x at step t given z^1 alone, z_t^l given z_<t^l and z^(l+1); `seen` by the posterior, per level.

    z^1 goes through a state that remembers all of it, and the state of the level above is known with its latents.
    """
    flow = {}
    for l in range(1, levels + 1):
        above = {f"z{m}": every(factor ** (m - l), until) for m in range(l + 1, levels + 1)}
        flow[f"prior z{l}"] = {f"z{l}": past, **above}
        flow[f"posterior z{l}"] = {"x": seen[l - 1], **flow[f"prior z{l}"]}
    flow["likelihood"] = {f"z{m}": every(factor ** (m - 1), until) for m in range(1, levels + 1)}
    return flow


def ladder(levels, per_block, output_layers, dense):
    """STCN: z_t^l given x_<t (posterior: x_<=t) as far back as l blocks reach, and z_t^(l+1); x_t given z_<=t alone."""
    flow = {}
    for l in range(1, levels + 1):
        reach = l * per_block + 1
        above = {f"z{l + 1}": own} if l < levels else {}
        flow[f"prior z{l}"] = {"x": receptive_field(reach), **above}
        flow[f"posterior z{l}"] = {"x": within(reach), **above}
    flow["likelihood"] = {f"z{l}": within(output_layers) for l in range(1, levels + 1) if dense or l == 1}
    return flow


def stochastic_layers(layers, deterministic):
    """(B.4), (B.7), (B.8), layer l with dilation 2^(l-1): its h hears x_<t over 2^l steps, and the latents of a lower
    layer m every 2^m steps; its b hears x_t and what follows every 2^l steps, as far as z_l is heard."""

    def heard(lower, upper):
        return lambda t: [k for k in range(t - 2**upper + 2**lower, t + 1, 2**lower) if k >= 0]

    def with_future(l):
        future = range(0, 2**layers, 2**l)
        return lambda t: [*receptive_field(2**l)(t), *(t + k for k in future if t + k < STEPS)]

    flow, names = {}, {l: f"z{l - deterministic}" for l in range(deterministic + 1, layers + 1)}
    for l, level in names.items():
        below = {names[m]: heard(m, l) for m in names if m < l}
        flow[f"prior {level}"] = {"x": receptive_field(2**l), **below}
        flow[f"posterior {level}"] = {"x": with_future(l), **below}
    flow["likelihood"] = {"x": receptive_field(2**layers), **{names[m]: heard(m, layers) for m in names}}
    return flow


def stochastic_recurrent(seen):
    """SRNN: z_t given z_(t-1) and x_<t; `seen` by the posterior; x_t given z_t and x_<t."""
    return {
        "prior z1": {"x": past, "z1": last},
        "posterior z1": {"x": seen, "z1": last},
        "likelihood": {"x": past, "z1": own},
    }


def z_forcing():
    """z_t comes before x_(t-1), the input of its own step, in the prior and in the posterior, which sees all others."""
    return {
        "prior z1": {"x": lambda t: range(t - 1), "z1": past},
        "posterior z1": {"x": lambda t: [k for k in range(STEPS) if k != t - 1], "z1": past},
        "likelihood": {"x": past, "z1": until},
    }


FLOWS = {
    # (A.2): x_t given x_<t
    "lstm": {"likelihood": {"x": past}},
    # dilations 1, 2, 1, 2 and a first convolution over the two steps before
    "wavenet": {"likelihood": {"x": receptive_field(6 + 2)}},
    # the lowest convolution sees one step beyond its own on each side, and so does the block at this rate
    "cwvae_l1": clockwork(1, 2, [within(2, 2)]),
    # a block at the rate of the upper level: one step, two of the lower ones, more
    "cwvae_l2": clockwork(2, 2, [within(2, 2), within(4, 4, hop=2)]),
    # (A.10) to the letter: the step's own span
    "cwvae_l2_residual": clockwork(2, 2, [own, within(0, 0, hop=2)]),
    "cwvae_l3_precision": clockwork(3, 2, [within(2, 2), within(4, 4, hop=2), within(8, 8, hop=4)]),
    # (A.3) to (A.8)
    "vrnn": {
        "prior z1": {"x": past, "z1": past},
        "posterior z1": {"x": until, "z1": past},
        "likelihood": {"x": past, "z1": until},
    },
    # q(z_t | z_(t-1), x_1..T), and its variant without look-ahead
    "srnn": stochastic_recurrent(everything),
    "srnn_filtering": stochastic_recurrent(until),
    "zforcing": z_forcing(),
    "zforcing_normalised": z_forcing(),
    "stochastic_wavenet": stochastic_layers(3, deterministic=0),
    "stochastic_wavenet_top": stochastic_layers(3, deterministic=1),
    # dilations 1, 2 in each block
    "stcn": ladder(2, 1 + 2, 2, dense=False),
    "stcn_dense": ladder(3, 1 + 2, 2, dense=True),
}


def factors(model, inputs, latents):
    """Name -> (B, T_l, ...) of every factor, as a function of inputs and latents."""
    lengths = torch.full((len(inputs),), inputs.shape[1])
    if model.bound == "exact":
        # the likelihood of all targets is the only access to the parameters, and it differs for each of them
        target = torch.zeros(*inputs.shape[:2], 1, dtype=torch.int64)
        return {"likelihood": model.score(inputs, target, lengths).log_likelihood.values.unflatten(1, (STEPS, -1))}
    conditionals = model.conditionals(inputs, lengths, latents, features=model.encode(inputs, lengths))
    found = {"likelihood": conditionals.parameters.unflatten(1, (STEPS, -1))}
    for kind in ("prior", "posterior"):
        for level, gaussian in getattr(conditionals, kind).items():
            found[f"{kind} {level}"] = torch.cat([gaussian.mean, gaussian.std], -1)
    return found


def test_every_registered_model_is_covered(covered_models):
    assert covered_models == set(MODELS)


def test_factors_depend_on_what_the_factorisation_says(tiny):
    model, flow = tiny.model, FLOWS[tiny.name]
    generator = torch.Generator().manual_seed(2)

    def leaf(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    frames = STEPS * model.stack
    sources = {"x": leaf(2, frames, 1)}
    if model.bound == "elbo":
        for level, hop in model.latent_hops.items():
            sources[level] = leaf(2, frames // hop, model.latent_sizes[level])
    found = factors(model, sources["x"], {name: value for name, value in sources.items() if name != "x"})
    assert set(found) == set(flow)
    for factor, values in found.items():
        for t in range(values.shape[1]):
            weights = torch.randn(values[:, t].shape, generator=generator, dtype=torch.float64)
            gradients = torch.autograd.grad(
                (values[:, t] * weights).sum(), list(sources.values()),
                retain_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            for source, gradient in zip(sources, gradients, strict=True):
                steps = gradient.unflatten(1, (STEPS, -1)) if source == "x" else gradient
                depends = steps.transpose(0, 1).flatten(1).ne(0).any(1).nonzero().flatten().tolist()
                assert depends == list(flow[factor].get(source, nothing)(t)), f"{factor} of step {t} on {source}"
