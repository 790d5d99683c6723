"""kNN in the space of an LDA: ties, brute force with scikit-learn, known accuracies, and what leaks would look like."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from speechlvm.latents import lda
from speechlvm.latents.knn import fit_on_all, leave_out, votes


def each(items):
    return np.arange(len(items))


@pytest.mark.parametrize(
    ("neighbours", "winners"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([1, 0, 0, 1], [1, 1, 0, 1]),  # at 2 and at 4 a tie: class 1 is nearest
        ([2, 0, 0, 1], [2, 2, 0, 0]),
        ([0, 1, 2, 2], [0, 0, 0, 2]),  # of three with one each, the nearest
        ([3, 0, 0, 1, 1], [3, 3, 0, 0, 0]),  # the nearest is not among the tied: of these, the one that is nearer
    ],
)
def test_majority_and_of_ties_the_nearest(neighbours, winners):
    assert votes(np.array([neighbours])).tolist() == [winners]


def test_votes_of_several_items_do_not_mix():
    rows = np.random.default_rng(0).integers(0, 4, (30, 9))
    np.testing.assert_array_equal(votes(rows), np.concatenate([votes(row[None]) for row in rows]))


@pytest.mark.parametrize("group_size", [1, 4])
def test_brute_force_with_scikit_learn(group_size):
    draws = np.random.default_rng(1)
    labels = draws.permutation(np.repeat([0, 1], 24))
    items = draws.standard_normal((48, 3)) + 0.8 * labels[:, None] * [1, 0, -1]
    groups = each(items) // group_size
    right, places = leave_out(items, labels, groups, 1, 11)
    for k in range(1, 12, 2):  # two classes and odd k: no ties
        for group in np.unique(groups):
            left = groups == group
            space = lda.fit(items[~left], labels[~left], 1)
            classifier = KNeighborsClassifier(k).fit(space.project(items[~left]), labels[~left])
            expected = classifier.predict(space.project(items[left])) == labels[left]
            np.testing.assert_array_equal(right[left, k - 1], expected)
            np.testing.assert_array_equal(places[left], space.project(items[left]))


def test_fit_on_all_by_brute_force():
    draws = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], 12)
    items = draws.standard_normal((36, 4)) + labels[:, None] * [1, 0, -1, 0]
    right, places = fit_on_all(items, labels, 2, 5)
    for item in range(36):
        order = np.argsort(np.linalg.norm(places - places[item], axis=1))
        nearest = labels[order[order != item][:5]]
        np.testing.assert_array_equal(right[item], votes(nearest[None])[0] == labels[item])


def test_classes_far_apart_are_told_apart_by_all_k():
    draws = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 15)
    items = draws.standard_normal((60, 10)) + 30 * np.eye(10)[labels]
    right, _ = leave_out(items, labels, each(items), 3, 14)
    assert right.all()


def test_known_accuracy_of_two_gaussians():
    draws = np.random.default_rng(4)
    labels = np.repeat([0, 1], 200)
    items = draws.standard_normal((400, 2)) + labels[:, None] * [2.0, 0.0]
    right, _ = leave_out(items, labels, each(items), 1, 25)
    best = ((items[:, 0] > 1) == labels).mean()  # Bayes' rule on these items; 0.841 of all
    assert right[:, 24].mean() == pytest.approx(best, abs=0.02)
    assert right[:, 0].mean() == pytest.approx(0.765, abs=0.05)  # 2 p (1 - p) is wrong, on average over all places


def test_labels_without_relation_are_at_chance_unless_the_lda_has_seen_them():
    draws = np.random.default_rng(5)
    unseen, seen, unseen_gaps, seen_gaps = [], [], [], []
    for _ in range(8):
        labels = draws.permutation(np.repeat([0, 1], 30))
        items = draws.standard_normal((60, 50))
        for result, accuracies, gaps in (
            (leave_out(items, labels, each(items), 1, 9), unseen, unseen_gaps),
            (fit_on_all(items, labels, 1, 9), seen, seen_gaps),
        ):
            accuracies.append(result[0].mean())
            gaps.append(result[1][labels == 1].mean() - result[1][labels == 0].mean())
    assert 0.38 < np.mean(unseen) < 0.55  # below one half: see the module
    assert np.mean(seen) > 0.7
    assert abs(np.mean(unseen_gaps)) < 0.5 < 1.5 < np.mean(seen_gaps)  # in standard deviations within classes


def test_what_only_the_speaker_tells_is_gone_where_speakers_are_left_out():
    """Each speaker has a place of its own, and classes are drawn for speakers: items tell the speaker, nothing more."""
    draws = np.random.default_rng(6)
    speakers = np.repeat(np.arange(24), 10)
    labels = draws.permutation(np.repeat([0, 1], 12))[speakers]
    items = 3 * draws.standard_normal((24, 20))[speakers] + 0.1 * draws.standard_normal((240, 20))
    assert leave_out(items, labels, each(items), 1, 5)[0].mean() > 0.9
    assert leave_out(items, labels, speakers, 1, 5)[0].mean() < 0.7


def test_the_last_member_of_a_class_has_one_neighbour_of_it():
    items = np.array([[0.0, 0], [0.1, 0], [5, 0], [5.1, 0.1], [5.2, -0.1], [5.3, 0]])
    right, _ = leave_out(items, np.array([0, 0, 1, 1, 1, 1]), each(items), 1, 5)
    assert right[:, 0].all()
    assert right[0].tolist() == [True, True, False, False, False]  # its one neighbour is outvoted from k = 3 on


def test_all_items_in_one_place_are_classified_somehow():
    right, _ = leave_out(np.ones((8, 3)), np.array([0, 1] * 4), np.arange(8), 1, 3)
    assert right.shape == (8, 3)
