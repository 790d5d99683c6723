"""Codings: what is known about the tables from the definition of mu-law and of 16-bit PCM."""

import numpy as np
import pytest

from speechlvm.coding import CODINGS, OUTERMOST_EDGE, PCM_OFFSET, build_coding, compand, expand
from speechlvm.utils.errors import ConfigError

PCM = np.arange(-32768, 32768)


@pytest.fixture(scope="module", params=CODINGS)
def coding(request):
    return build_coding(request.param)


def test_edges_partition_the_line(coding):
    assert coding.edges.dtype == np.float32 and coding.edges.shape == (coding.size + 1,)
    assert np.all(np.diff(coding.edges) > 0)
    assert coding.edges[0] == np.float32(-OUTERMOST_EDGE) and coding.edges[-1] == np.float32(OUTERMOST_EDGE)


def test_values_lie_in_their_cells(coding):
    assert np.all(coding.edges[:-1] <= coding.values) and np.all(coding.values < coding.edges[1:])
    assert np.abs(coding.values).max() <= 1


def test_decoded_values_encode_to_the_same_code_where_it_is_reached(coding):
    reached = np.unique(coding.codes)
    decoded = coding.pcm[reached].astype(np.int64)
    if coding.lossless:
        assert np.array_equal(decoded, PCM)
    # a code that stands for several PCM values decodes to one of them
    assert np.array_equal(coding.codes[decoded + PCM_OFFSET], reached)


def test_codes_grow_with_pcm(coding):
    assert coding.codes.shape == (65536,) and np.all(np.diff(coding.codes) >= 0)
    assert coding.codes[0] == 0 and coding.codes.max() < coding.size


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        # ln(1 + 65535/32768) / ln(65536) = 0.0990603 of half the grid of 65535 intervals, half to even
        ("mulaw", (29522, 32768, 36013)),
        ("mulaw8", (127, 128, 128)),
        ("linear", (32767, 32768, 32769)),
        ("mulaw-pcm", (32767, 32768, 32769)),
    ],
)
def test_codes_around_zero(name, codes):
    assert tuple(build_coding(name).codes[PCM_OFFSET - 1 : PCM_OFFSET + 2]) == codes


def test_sixteen_bit_mu_law_reaches_20127_codes_of_at_most_twelve_values():
    _, counts = np.unique(build_coding("mulaw").codes, return_counts=True)
    assert len(counts) == 20127 and counts.max() == 12


def test_lossless_codings():
    assert {name for name in CODINGS if build_coding(name).lossless} == {"linear", "mulaw-pcm"}


def test_companded_values_are_far_apart_at_zero_and_close_at_full_scale():
    values = compand(PCM / 32768.0, 65535.0)
    assert values[PCM_OFFSET + 1] - values[PCM_OFFSET] == pytest.approx(0.099, abs=1e-4)
    assert values[-1] - values[-2] == pytest.approx(2.75e-6, abs=1e-8)


def test_expand_inverts_compand():
    x = np.linspace(-1, 1, 1001)
    np.testing.assert_allclose(expand(compand(x, 255.0), 255.0), x, atol=1e-14)


def test_equal_cells_of_linear_and_of_mu_law():
    for name, width in (("linear", 1 / 32768), ("mulaw", 2 / 65535), ("mulaw8", 2 / 255)):
        np.testing.assert_allclose(np.diff(build_coding(name).edges.astype(np.float64))[1:-1], width, atol=1.2e-7)


def test_linear_cells_are_centred_on_their_values():
    coding = build_coding("linear")
    np.testing.assert_array_equal(coding.edges[1:-1], (PCM[1:] - 0.5) / 32768)


def test_pcm_cells_of_mulaw_pcm_are_companded_linear_cells():
    edges, linear = build_coding("mulaw-pcm").edges, build_coding("linear").edges
    np.testing.assert_allclose(edges[1:-1], compand(linear[1:-1].astype(np.float64), 65535.0), atol=1e-6)


def test_unknown_coding_is_a_configuration_error():
    with pytest.raises(ConfigError, match="coding: 'alaw' is unknown; expected one of mulaw"):
        build_coding("alaw")
