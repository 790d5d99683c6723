"""LDA: the known direction of Gaussian classes; scikit-learn's where nothing is shrunk; features that never vary."""

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from speechlvm.latents import lda
from speechlvm.latents.lda import fit


def gaussian_classes(counts, dimensions, seed, distance=1.0):
    """Items of classes with a common covariance, their labels, the means and the covariance."""
    draws = np.random.default_rng(seed)
    mixing = draws.standard_normal((dimensions, dimensions)) / np.sqrt(dimensions) + np.eye(dimensions)
    means = distance * draws.standard_normal((len(counts), dimensions))
    labels = np.repeat(np.arange(len(counts)), counts)
    items = means[labels] + draws.standard_normal((len(labels), dimensions)) @ mixing.T
    return items, labels, means, mixing @ mixing.T


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_the_direction_of_two_gaussians():
    items, labels, means, covariance = gaussian_classes([4000, 2000], 6, seed=0)
    found = fit(items, labels, 1)
    expected = np.linalg.solve(covariance, means[1] - means[0])
    assert cosine(found.directions[:, 0], expected) > 0.999  # the first class lies on the negative side
    # a unit along it is the standard deviation within classes
    places = found.project(items)[:, 0]
    assert np.std(places - np.where(labels == 0, places[labels == 0].mean(), places[labels == 1].mean())) == (
        pytest.approx(1, abs=0.02)
    )
    assert places.mean() == pytest.approx(0, abs=1e-9)


def test_scikit_learns_space_where_nothing_is_shrunk(monkeypatch):
    monkeypatch.setattr(lda, "shrunk_covariance", lambda x: x.T @ x / len(x))
    items, labels, _, _ = gaussian_classes([40, 25, 10, 60], 7, seed=1)
    found = fit(items, labels, 3).project(items)
    other = LinearDiscriminantAnalysis(n_components=3).fit_transform(items, labels)
    for ours, theirs in zip(found.T, other.T, strict=True):
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 1 - 1e-9
    ratios = found.std(0) / other.std(0)  # one scale for all: versions differ in dividing by N or N - C
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=2e-4)


@pytest.mark.parametrize(("items", "features"), [(12, 30), (400, 7), (5, 1)])
def test_the_shrunk_covariance_is_scikit_learns(items, features):
    draws = np.random.default_rng(4).normal(size=(items, features)) * np.arange(1, features + 1)
    expected, _ = ledoit_wolf(draws, assume_centered=True)
    np.testing.assert_allclose(lda.shrunk_covariance(draws), expected, rtol=1e-10, atol=1e-12)


def test_units_of_features_do_not_matter():
    items, labels, _, _ = gaussian_classes([12, 9, 14], 20, seed=2)
    scales = 10.0 ** np.linspace(-6, 6, 20)
    np.testing.assert_allclose(
        fit(items * scales + 100 * scales, labels, 2).project(items * scales + 100 * scales),
        fit(items, labels, 2).project(items),
        rtol=1e-5,
    )


def test_more_dimensions_than_items():
    draws = np.random.default_rng(3)
    labels = np.repeat([0, 1], 20)
    items = draws.standard_normal((40, 300))
    items[:, 7] += 6 * labels
    fresh = draws.standard_normal((200, 300))
    fresh[100:, 7] += 6
    places = fit(items, labels, 1).project(fresh)[:, 0]
    assert ((places > 0) == (np.arange(200) >= 100)).mean() > 0.9


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_features_that_never_vary_change_nothing(value):
    items, labels, _, _ = gaussian_classes([30, 20], 4, seed=4)
    constant = np.full((50, 3), value)
    expected, found = fit(items, labels, 1).project(items), fit(np.hstack([items, constant]), labels, 1)
    places = found.project(np.hstack([items, constant]))
    assert np.isfinite(places).all()
    assert cosine(places[:, 0], expected[:, 0]) > 0.999


def test_a_feature_without_spread_within_classes_tells_them_apart():
    draws = np.random.default_rng(5)
    labels = np.repeat([0, 1], 10)
    items = np.column_stack([draws.standard_normal(20), 3.0 + labels])
    places = fit(items, labels, 1).project(items)[:, 0]
    assert places[:10].max() < places[10:].min()


def test_items_that_are_all_the_same_lie_in_one_place():
    places = fit(np.ones((6, 3)), np.array([0, 0, 0, 1, 1, 1]), 1).project(np.ones((6, 3)))
    np.testing.assert_array_equal(places, np.zeros((6, 1)))


def test_fewer_features_than_dimensions():
    items, labels, _, _ = gaussian_classes([9, 9, 9, 9], 2, seed=6)
    found = fit(items, labels, 3).directions
    assert np.abs(found[:, :2]).min() > 0
    assert not found[:, 2].any()


@pytest.mark.parametrize("dimensions", [0, 2])
def test_no_more_dimensions_than_classes_have(dimensions):
    with pytest.raises(ValueError, match="dimensions for 2 classes; expected 1 to 1"):
        fit(np.eye(4), np.array([0, 0, 1, 1]), dimensions)
