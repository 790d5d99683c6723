"""Sampling with latents that are given and at temperatures, against the factors that all models evaluate."""

import itertools

import pytest
import torch

from speechlvm.distributions import build_distribution
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.models.bound import slice_features
from speechlvm.observation import AudioObservation, Statistics

FRAMES = 41  # the last step is a partial one
EXACTLY = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def given(tiny_latent):
    """Latents (2, T_l, D_l) that no prior would give."""
    model, generator = tiny_latent.model, torch.Generator().manual_seed(7)
    shapes = {level: (2, -(-FRAMES // hop), model.latent_sizes[level]) for level, hop in model.latent_hops.items()}
    return {level: 2 * torch.randn(shape, generator=generator).double() for level, shape in shapes.items()}


def subsets(levels):
    return [kept for size in range(len(levels) + 1) for kept in itertools.combinations(levels, size)]


def prefix_state(system, noise):
    """State after two hops of noise."""
    model, frames = system.model, 2 * system.model.hop
    pcm = torch.randint(-30000, 30000, (2, frames), generator=torch.Generator().manual_seed(4)).to(torch.int16)
    lengths = torch.full((2,), frames)
    inputs = system.observation.inputs(pcm, lengths).double()
    return model.infer(inputs, lengths, features=model.encode(inputs, lengths), noise=noise).state


def check_factors(system, samples, noise, state=None, kept=(), temperature=1.0):
    """Latents that are not kept and frames are noise at this temperature through the factors at the samples."""
    model, before = system.model, 0 if state is None else int(state["frames"][0])
    rows = torch.as_tensor(temperature).expand(2).double().view(2, 1, 1)
    inputs, lengths = system.observation.inputs_of(samples.target).double(), torch.full((2,), FRAMES)
    conditionals = model.conditionals(inputs, lengths, samples.latents, state=state)
    for level, z in samples.latents.items():
        if level not in kept:
            drawn = conditionals.prior[level].sample(rows * model.draw_noise(noise, level, before, FRAMES))
            torch.testing.assert_close(z, drawn, **EXACTLY)
    uniform = noise.uniform("x", before, FRAMES, model.distribution.noise_size)
    target = model.distribution.sample(conditionals.parameters, uniform, rows)
    torch.testing.assert_close(samples.target, target, **EXACTLY)
    log_likelihood, log_prior = model.log_joint(inputs, samples.target, lengths, samples.latents, state=state)
    torch.testing.assert_close(samples.log_likelihood, log_likelihood.values, **EXACTLY)
    assert list(samples.log_prior) == list(samples.latents) == list(model.latent_sizes)
    for level, series in log_prior.items():
        torch.testing.assert_close(samples.log_prior[level], series.values, **EXACTLY)


@pytest.mark.parametrize("continued", [False, True])
def test_given_latents_are_kept_and_all_else_follows_from_them(tiny_latent, given, double_noise, continued):
    noise = double_noise(2)
    state = prefix_state(tiny_latent, noise) if continued else None
    for kept in subsets(given):
        latents = {level: given[level] for level in kept}
        samples = tiny_latent.model.sample(FRAMES, noise, tiny_latent.observation.inputs_of, state, latents=latents)
        for level in given:
            assert torch.equal(samples.latents[level], given[level]) == (level in kept)
        check_factors(tiny_latent, samples, noise, state, kept)


def test_blocks_of_generation_change_nothing(tiny_latent, given, double_noise, monkeypatch):
    model, inputs_of, rows = tiny_latent.model, tiny_latent.observation.inputs_of, torch.tensor([0.3, 1.7])
    for latents in ({}, *({level: z} for level, z in given.items())):
        whole = model.sample(FRAMES, double_noise(2), inputs_of, latents=latents, temperature=rows)
        with monkeypatch.context() as patched:
            patched.setattr("speechlvm.models.ancestral.SAMPLED_BLOCK_FRAMES", 12)
            patched.setattr("speechlvm.models.cwvae.GENERATED_AT_ONCE_FRAMES", 32)
            parts = model.sample(FRAMES, double_noise(2), inputs_of, latents=latents, temperature=rows)
        assert torch.equal(whole.target, parts.target)
        torch.testing.assert_close(whole.log_likelihood, parts.log_likelihood, **EXACTLY)
        for level, z in whole.latents.items():
            torch.testing.assert_close(z, parts.latents[level], **EXACTLY)
            torch.testing.assert_close(whole.log_prior[level], parts.log_prior[level], **EXACTLY)


def test_with_all_latents_given_other_noise_changes_frames_only(tiny_latent, given, double_noise):
    model, inputs_of = tiny_latent.model, tiny_latent.observation.inputs_of
    one, other = (model.sample(FRAMES, double_noise(2, name), inputs_of, latents=given) for name in ("a", "b"))
    assert not torch.equal(one.target, other.target)
    for level in given:
        assert torch.equal(one.latents[level], other.latents[level])


def test_rows_of_nan_are_drawn(tiny_latent, given, double_noise):
    """The first row keeps the lowest level and the second the others, as when each is sampled by itself."""
    model, inputs_of, noise = tiny_latent.model, tiny_latent.observation.inputs_of, double_noise(2)
    mixed, alone = {}, ({}, {})
    for level, values in given.items():
        row = 0 if level == "z1" else 1
        mixed[level] = values.clone()
        mixed[level][1 - row] = torch.nan
        alone[row][level] = values[row : row + 1]
    together = model.sample(FRAMES, noise, inputs_of, latents=mixed)
    for row, latents in enumerate(alone):
        apart = model.sample(FRAMES, noise.select([row]), inputs_of, latents=latents)
        assert torch.equal(together.target[row], apart.target[0])
        for level, z in apart.latents.items():
            torch.testing.assert_close(together.latents[level][row], z[0], **EXACTLY)
            torch.testing.assert_close(together.log_prior[level][row], apart.log_prior[level][0], **EXACTLY)


def test_temperature_scales_what_is_drawn_row_by_row_and_no_probability(tiny_latent, given, double_noise):
    model, noise, rows = tiny_latent.model, double_noise(2), torch.tensor([0.3, 1.7])
    samples = model.sample(FRAMES, noise, tiny_latent.observation.inputs_of, temperature=rows)
    check_factors(tiny_latent, samples, noise, temperature=rows)
    top = list(given)[-1]
    kept = {top: given[top]}
    samples = model.sample(FRAMES, noise, tiny_latent.observation.inputs_of, latents=kept, temperature=rows)
    assert torch.equal(samples.latents[top], given[top])
    check_factors(tiny_latent, samples, noise, kept=kept, temperature=rows)


def test_without_latents_temperature_is_that_of_the_frames(tiny, double_noise):
    model, observation, noise = tiny.model, tiny.observation, double_noise(2)
    plain = model.sample(FRAMES, noise, observation.inputs_of)
    same = model.sample(FRAMES, noise, observation.inputs_of, temperature=torch.ones(2))
    cool = model.sample(FRAMES, noise, observation.inputs_of, temperature=0.5)
    assert torch.equal(plain.target, same.target) and torch.equal(plain.log_likelihood, same.log_likelihood)
    assert not torch.equal(plain.target, cool.target)
    if model.bound == "exact":
        lengths = torch.full((2,), FRAMES)
        bound = model.score(observation.inputs_of(cool.target).double(), cool.target, lengths)
        torch.testing.assert_close(cool.log_likelihood, bound.log_likelihood.values, **EXACTLY)


@pytest.mark.parametrize(
    ("name", "conf"),
    [("lstm", {"stack": 4, "hidden": 6}), ("cwvae", {"stride": 4, "levels": 2, "factor": 2, "width": 5})],
)
def test_towards_zero_every_draw_is_a_mean(name, conf, double_noise):
    observation = AudioObservation("normalised", Statistics(0.0, 0.1))
    torch.manual_seed(3)
    model = build_model(name, conf, 1, build_distribution("gaussian", {}, observation)).double().eval()
    samples = model.sample(FRAMES, double_noise(2), observation.inputs_of, temperature=1e-9)
    inputs, lengths = samples.target, torch.full((2,), FRAMES)
    if name == "lstm":
        previous = torch.nn.functional.pad(inputs, (0, 0, 4, 3)).view(2, -1, 4)[:, :-1]
        parameters = model.predict(previous, model.initial_state(2))[0][:, :FRAMES]
    else:
        conditionals = model.conditionals(inputs, lengths, samples.latents)
        parameters = conditionals.parameters
        for level, prior in conditionals.prior.items():
            torch.testing.assert_close(samples.latents[level], prior.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(samples.target, model.distribution.mode(parameters), rtol=0, atol=1e-7)


def test_what_cannot_be_given_is_refused(tiny_latent, given, double_noise):
    def sample(rows=2, **wanted):
        tiny_latent.model.sample(FRAMES, double_noise(rows), tiny_latent.observation.inputs_of, **wanted)

    z = given["z1"]
    with pytest.raises(ValueError, match="no level 'z9'; expected z1"):
        sample(latents={"z9": z})
    for wrong in (z[:1], z[:, 1:], z[..., 1:]):
        with pytest.raises(ValueError, match=r"latents of z1: expected shape \(2, 11, .\), found"):
            sample(latents={"z1": wrong})
    part = z.clone()
    part[0, -1] = torch.nan
    with pytest.raises(ValueError, match="latents of z1: a row is NaN in part"):
        sample(latents={"z1": part})
    for temperature in (0, -1.0, float("nan"), torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="temperature: expected positive"):
            sample(temperature=temperature)


def test_a_model_without_latents_can_be_given_none():
    observation = AudioObservation("mulaw8", Statistics(0.0, 0.1))
    model = build_model("lstm", {"stack": 4, "hidden": 6}, 1, build_distribution("categorical", {}, observation))
    with pytest.raises(ValueError, match="expected none at all"):
        model.sample(4, Noise([(0,)]), observation.inputs_of, latents={"z1": torch.zeros(1, 1, 3)})


def test_following_latents_hop_by_hop_changes_nothing(tiny_latent, given):
    model, hop = tiny_latent.model, tiny_latent.model.hop
    pcm = torch.randint(-30000, 30000, (2, FRAMES), generator=torch.Generator().manual_seed(4)).to(torch.int16)
    lengths = torch.tensor([FRAMES, FRAMES - 3])
    inputs = tiny_latent.observation.inputs(pcm, lengths).double()
    features = model.encode(inputs, lengths)
    whole = model.follow(inputs, lengths, given, features=features)
    state, parts = None, []
    for start in range(0, FRAMES, hop):
        stop = min(start + hop, FRAMES)
        z = {level: given[level][:, start // of : -(-stop // of)] for level, of in model.latent_hops.items()}
        arguments = (inputs[:, start:stop], lengths - start, z)
        of_part = slice_features(features, start, stop)
        blind = model.follow(*arguments, features=of_part, state=state, decode=False).conditionals
        part = model.follow(*arguments, features=of_part, state=state)
        for level in given:
            assert blind.parameters is None and torch.equal(
                blind.prior[level].mean, part.conditionals.prior[level].mean
            )
        parts.append(part.conditionals)
        state = part.state
    torch.testing.assert_close(torch.cat([p.parameters for p in parts], 1), whole.conditionals.parameters, **EXACTLY)
    for name in ("prior", "posterior"):
        for level in given:
            factors = [getattr(part, name)[level] for part in parts]
            expected = getattr(whole.conditionals, name)[level]
            torch.testing.assert_close(torch.cat([f.mean for f in factors], 1), expected.mean, **EXACTLY)
            torch.testing.assert_close(torch.cat([f.std for f in factors], 1), expected.std, **EXACTLY)
    for name, value in whole.state.items():
        torch.testing.assert_close(state[name], value, **EXACTLY)
