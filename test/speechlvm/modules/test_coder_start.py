"""The codes that a hierarchy's coder starts as."""

import pytest
import torch

from speechlvm.coding import build_coding
from speechlvm.distributions.dmol import DiscretizedLogisticMixture
from speechlvm.distributions.noise import Noise
from speechlvm.models import build_model
from speechlvm.modules.coder_start import start_as_cosine_transform
from speechlvm.modules.conv_coder import CausalDecoder, LadderEncoder
from speechlvm.modules.initialise import cosine_transform


@pytest.mark.parametrize(("channels", "width"), [(1, 30), (1, 24), (2, 50), (1, 10), (2, 10)])
def test_coder_starts_as_a_transform_and_its_inverse(channels, width):
    encoder = LadderEncoder(channels, width, [(4, 3, 2)], blocks=1).double()
    decoder = CausalDecoder(width, width, (2, 3), blocks=1).double()
    used = start_as_cosine_transform(encoder, decoder, channels)
    assert used == min(width, 24 * channels)
    with torch.no_grad():  # the linear path alone
        for block in (*encoder.levels[0], *decoder.blocks):
            block.down.weight.zero_()
        decoder.enter.weight.copy_(torch.eye(width))
        decoder.enter.bias.zero_()
    coefficients = torch.randn(3, 5, max(1, used // channels), channels, dtype=torch.float64)
    basis = cosine_transform(24, coefficients.shape[2])
    frames = torch.einsum("kt,bnkc->bntc", basis, coefficients).reshape(3, 5 * 24, channels)
    (features,) = encoder(frames, torch.full((3,), 120))
    # the constant is exact even where narrow layers cut high frequencies on the way
    torch.testing.assert_close(features[..., :channels], coefficients[:, :, 0], rtol=0, atol=1e-10)
    if width >= 24 * channels:
        torch.testing.assert_close(features[..., :used], coefficients.flatten(2), rtol=0, atol=1e-10)
        assert features[..., used:].abs().sum() < 1e-9
        back, _ = decoder(features, decoder.initial_past(3))
        vectors = encoder.levels[0][0].skip(frames.reshape(3, 30, 4 * channels))
        torch.testing.assert_close(back, vectors, rtol=0, atol=1e-10)


def test_cosine_transform_is_orthonormal():
    basis = cosine_transform(12, 12)
    torch.testing.assert_close(basis @ basis.t(), torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(cosine_transform(12, 5), basis[:5])


def test_a_second_level_starts_as_loudness_which_the_prior_below_follows():
    distribution = DiscretizedLogisticMixture(build_coding("mulaw8").edges, 2)
    settings = {"stride": 4, "levels": 2, "factor": 2, "width": 12, "blocks": 1, "prior": "context"}
    torch.manual_seed(0)
    model = build_model("cwvae", settings, 1, distribution).double()
    steps = torch.randn(3, 10, 4, 1, dtype=torch.float64) * torch.rand(3, 10, 1, 1, dtype=torch.float64)
    frames, lengths = steps.flatten(1, 2), torch.full((3,), 40)
    with torch.no_grad():
        features = model.encode(frames, lengths)
        bound = model.infer(
            frames, lengths, features=features, noise=Noise([(0, row) for row in range(3)], dtype=torch.float64)
        )
    # four coefficients in use, three bands: each is a coefficient, the fourth is above them
    sizes = features["e1"].values[..., :3].abs().reshape(3, 5, 6)
    assert torch.corrcoef(torch.stack([sizes.flatten(), features["e2"].values[..., :6].flatten()]))[0, 1] > 0.98
    std = bound.conditionals.prior["z1"].std
    assert torch.corrcoef(torch.stack([sizes.reshape(3, 10, 3).flatten(), std[..., :3].flatten()]))[0, 1] > 0.6
    assert std[..., 4:].std() < 0.1 * std[..., :3].std()
