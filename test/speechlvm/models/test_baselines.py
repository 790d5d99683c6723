"""Scorers without networks: uniform, memoryless optimum, FLAC."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from speechlvm.coding import build_coding
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.models.dmol_optimal import DMoLOptimal
from speechlvm.models.flac import FLAC, FLACProgram
from speechlvm.models.uniform import Uniform
from speechlvm.utils.errors import UserError


def logistic_pcm(frames=40_000, seed=0):
    """Silence and speech in turns: two logistics under the linear coding."""
    generator = np.random.default_rng(seed)
    scale = np.where(generator.random(frames) < 0.4, 20.0, 1500.0)
    place = np.where(scale < 100, 0.0, 300.0)
    return np.rint(place + scale * generator.logistic(size=frames)).clip(-32768, 32767).astype(np.int16)


def histogram_of(pcm):
    return np.bincount(pcm.astype(np.int64) + 32768, minlength=65536)


@pytest.mark.parametrize(("name", "bits"), [("mulaw", 16), ("linear", 16), ("mulaw8", 8)])
def test_uniform_costs_the_logarithm_of_the_number_of_codes(name, bits):
    uniform = Uniform.fit(np.zeros(65536), build_coding(name))
    assert uniform.nats(np.zeros(100, np.int16)) == pytest.approx(-100 * bits * math.log(2))
    assert uniform.bound == "exact"


def test_flac_of_silence_and_of_noise():
    flac = FLAC()
    silence, generator = np.zeros(160_000, np.int16), np.random.default_rng(0)
    noise = generator.integers(-32768, 32768, 160_000).astype(np.int16)
    bits = [-flac.nats(pcm) / math.log(2) / len(pcm) for pcm in (silence, noise)]
    assert 0 < bits[0] < 0.1
    assert 16.0 < bits[1] < 16.2
    assert flac.nats(noise) == -8 * math.log(2) * flac.bytes(noise)
    assert flac.bound == "code-length"


@pytest.mark.parametrize(("frames", "more"), [(1, 8218), (160_000, 8218), (160_001, 8236), (19_200_000, 67_704)])
def test_flacs_program_writes_padding_and_a_seek_table(frames, more, tmp_path):
    """As measured with flac 1.4.2, and with the one that is installed."""
    pcm = (np.arange(frames) % 7).astype(np.int16)
    assert FLACProgram().bytes(pcm) == FLAC().bytes(pcm) + more
    if shutil.which("flac"):
        soundfile.write(tmp_path / "a.wav", pcm, 16000, subtype="PCM_16")
        subprocess.run(["flac", "--silent", "--best", tmp_path / "a.wav"], check=True)
        assert FLACProgram().bytes(pcm) == (tmp_path / "a.flac").stat().st_size


def test_flac_is_at_its_highest_level():
    import io

    time = np.arange(160_000)
    pcm = np.rint(8000 * np.sin(time * 0.05) + 3000 * np.sin(time * 0.31) + 100 * np.sin(time**1.3)).astype(np.int16)
    sizes = []
    for level in (0.0, 0.5, 1.0):
        file = io.BytesIO()
        soundfile.write(file, pcm, 16000, format="FLAC", subtype="PCM_16", compression_level=level)
        sizes.append(len(file.getvalue()))
    assert FLAC().bytes(pcm) == sizes[2] < sizes[0]


@pytest.fixture(scope="module")
def fitted():
    pcm = logistic_pcm()
    coding = build_coding("linear")
    return pcm, coding, DMoLOptimal.fit(histogram_of(pcm), coding)


def test_dmol_optimal_recovers_known_parameters(fitted):
    _, _, model = fitted
    logits, means, log_scales = model.mixture.view(3, 2)[:, model.mixture[4:].argsort()]
    assert torch.softmax(logits, 0)[0].item() == pytest.approx(0.4, abs=0.02)
    assert (means * 32768).tolist() == pytest.approx([0.0, 300.0], abs=40)
    assert (log_scales.exp() * 32768).tolist() == pytest.approx([20.0, 1500.0], rel=0.05)


def test_dmol_optimal_is_an_optimum(fitted):
    pcm, coding, model = fitted
    distribution = DiscretizedLogisticMixture(coding.edges, 2).double()
    codes = torch.from_numpy(coding.codes[pcm.astype(np.int64) + 32768].astype(np.int64)).unsqueeze(-1)
    mixture = model.mixture.clone().requires_grad_()
    nats = distribution.log_prob(mixture.expand(len(codes), -1), codes).mean()
    assert model.nats(pcm) == pytest.approx(nats.item() * len(pcm), rel=1e-9)
    nats.backward()
    scales = mixture.detach()[4:].exp()
    assert (mixture.grad * torch.cat([torch.ones(2), scales, torch.ones(2)])).abs().max() < 1e-5
    for index in range(6):
        for change in (-0.05, 0.05):
            other = model.mixture.clone()
            other[index] += change * (scales[index - 2] if index in (2, 3) else 1.0)
            perturbed = distribution.log_prob(other.expand(len(codes), -1), codes).mean()
            assert perturbed < nats - 1e-7, index


def test_dmol_optimal_lies_between_entropy_and_uniform_on_other_data(fitted):
    _, coding, model = fitted
    other = logistic_pcm(seed=1)
    assert Uniform.fit(histogram_of(other), coding).nats(other) < model.nats(other)
    share = np.bincount(other.astype(np.int64) + 32768) / len(other)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert -model.nats(other) / len(other) > entropy
    assert model.parameters == 5 and model.bound == "exact"


def test_a_nearly_constant_set_converges():
    pcm = np.zeros(1000, np.int16)
    model = DMoLOptimal.fit(histogram_of(pcm), build_coding("mulaw"))
    assert model.nats(pcm) > -1.0


def test_an_empty_histogram_is_refused():
    with pytest.raises(UserError, match="histogram is empty"):
        DMoLOptimal.fit(np.zeros(65536, np.int64), build_coding("mulaw"))
