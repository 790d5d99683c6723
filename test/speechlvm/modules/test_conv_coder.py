"""The coder's clocks, its declared receptive field, and its indifference to padding and cuts."""

import math

import pytest
import torch

from speechlvm.modules.conv_coder import CausalDecoder, LadderEncoder, factorise

WIDTH = 6
STRIDES = [(3, 2), (4,)]  # hops 6 and 24


@pytest.mark.parametrize(
    ("stride", "factors"),
    [(2, (2,)), (8, (8,)), (64, (8, 8)), (200, (8, 5, 5)), (256, (8, 8, 4)), (12, (6, 2)), (11, None), (26, None)],
)
def test_factorise(stride, factors):
    assert factorise(stride) == factors
    if factors:
        assert math.prod(factors) == stride


def make_encoder(strict=False, blocks=1):
    torch.manual_seed(0)
    return LadderEncoder(1, WIDTH, STRIDES, blocks, strict).double()


@pytest.mark.parametrize("strict", [False, True])
def test_features_see_exactly_the_declared_span(strict):
    encoder = make_encoder(strict, blocks=2)
    frames = 24 * 12
    inputs = torch.randn(1, frames, 1, dtype=torch.float64, requires_grad=True)
    features = encoder(inputs, torch.tensor([frames]))
    for values, hop, halo in zip(features, (6, 24), encoder.halo_frames, strict=True):
        assert values.shape == (1, frames // hop, WIDTH)
        step = frames // hop // 2
        (gradient,) = torch.autograd.grad(values[0, step].sum(), inputs, retain_graph=True)
        seen = gradient[0, :, 0].nonzero()[:, 0]
        assert (int(seen.min()), int(seen.max())) == (step * hop - halo, (step + 1) * hop - 1 + halo)


def test_halo_is_zero_if_strict_and_grows_with_the_level_otherwise():
    assert make_encoder(strict=True).halo_frames == (0, 0)
    assert make_encoder(strict=False).halo_frames == (3 + 6, 3 + 6 + 24)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("frames", [1, 5, 23, 25, 50])
def test_padding_is_outside(strict, frames):
    encoder = make_encoder(strict)
    inputs = torch.randn(1, frames, 1, dtype=torch.float64)
    alone = encoder(inputs, torch.tensor([frames]))
    padded = torch.zeros(2, 97, 1, dtype=torch.float64)
    padded[0, :frames] = inputs[0]
    padded[1] = 1.0
    together = encoder(padded, torch.tensor([frames, 97]))
    for one, both, hop in zip(alone, together, (6, 24), strict=True):
        assert one.shape[1] == math.ceil(frames / hop)
        torch.testing.assert_close(both[:1, : one.shape[1]], one, rtol=0, atol=1e-12)
        assert both[0, one.shape[1] :].abs().sum() == 0


def test_decoder_is_causal_and_carries_its_past():
    torch.manual_seed(0)
    decoder = CausalDecoder(4, WIDTH, (3, 2), blocks=2).double()
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    whole, past = decoder(x, decoder.initial_past(2))
    assert whole.shape == (2, 9 * 6, WIDTH)
    (gradient,) = torch.autograd.grad(whole[:, 4 * 6 : 5 * 6].sum(), x)
    assert gradient[:, 5:].abs().max() == 0
    assert gradient[:, 4].abs().min() > 0
    assert gradient[:, 3].abs().min() > 0

    pieces, carried = [], decoder.initial_past(2)
    for start, stop in ((0, 1), (1, 4), (4, 9)):
        piece, carried = decoder(x[:, start:stop], carried)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(carried, past, rtol=0, atol=1e-12)
