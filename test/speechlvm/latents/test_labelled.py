"""Averages over phones and utterances by hand, and sets that do not belong together."""

import numpy as np
import pytest
from imitations.representations import make

from speechlvm.latents.labelled import Unsuitable, check_labelled, of_phones, of_utterances, open_sets, require_labels
from speechlvm.utils.errors import UserError

RAMP = np.arange(12.0).reshape(6, 2)  # steps 0 .. 5, centred at frames 32, 96, ... 352


def test_averages_over_the_steps_of_each_phone(tmp_path):
    values = {"a_1": {"z1": RAMP, "z2": -RAMP[:, :1]}, "b_1": {"z1": RAMP, "z2": RAMP[:, :1]}}
    phones = {"a_1": [(0, 100, "h#"), (100, 110, "q"), (110, 300, "s")], "b_1": [(0, 384, "ih")]}
    sets = open_sets(*zip(make(tmp_path, "test", values, phones=phones), strict=True))
    items = of_phones(sets, "a", lambda label: None if label == "q" else label.upper())
    assert items.labels.tolist() == ["H#", "S"]
    assert items.speakers.tolist() == ["a", "a"]
    np.testing.assert_array_equal(items.features["z1"], [[1, 2], [6, 7]])  # steps 0, 1 and 2, 3, 4
    np.testing.assert_array_equal(items.features["z2"], [[-1], [-6]])
    assert of_phones(sets, "a", lambda label: label).features["z1"][1].tolist() == [2, 3]  # 105 is nearest to 96
    assert of_phones(sets, "b", lambda label: label).labels.tolist() == ["ih"]
    assert len(of_phones(sets, "c", lambda label: label)) == 0


def test_averages_over_utterances_of_all_sets(tmp_path):
    train = make(tmp_path, "train", {"a_1": {"z1": RAMP}, "c_1": {"z1": RAMP + 7}}, gender={"a": "f", "c": "m"})
    test = make(tmp_path, "test", {"b_1": {"z1": RAMP[:2]}, "d_1": {"z1": RAMP}}, gender={"b": "m"})
    sets = open_sets(*zip(train, test, strict=True))
    items = of_utterances(sets, lambda data, speaker: data.spk2gender.get(speaker))
    assert items.labels.tolist() == ["f", "m", "m"]
    assert items.speakers.tolist() == ["a", "c", "b"]
    np.testing.assert_array_equal(items.features["z1"], [[5, 6], [12, 13], [1, 2]])
    chosen = items.where(items.labels == "m")
    assert (len(chosen), chosen.features["z1"].shape) == (2, (2, 2))


def test_sums_of_float32_values_do_not_lose_digits(tmp_path):
    values = np.full((200_000, 1), 1.0 / 3)
    sets = open_sets(*zip(make(tmp_path, "test", {"a_1": {"z1": values}}), strict=True))
    average = of_utterances(sets, lambda data, speaker: speaker).features["z1"]
    assert average.item() == pytest.approx(float(np.float32(1 / 3)), rel=1e-12)


def test_a_missing_file_is_named(tmp_path):
    sets = open_sets(*zip(make(tmp_path, "test", {"a_1": {"z1": RAMP}}, gender={"a": "f"}), strict=True))
    require_labels(sets, spk2gender="spk2gender")
    with pytest.raises(Unsuitable, match="test/data/spk2height: no such file"):
        require_labels(sets, spk2gender="spk2gender", spk2height_cm="spk2height")


@pytest.mark.parametrize(
    ("latents", "data", "message"),
    [
        (("a_1", "a_2"), ("a_1",), r"a_2 is in .*x/latents and not in .*y/data \(1 such"),
        (("a_1",), ("a_1", "b_1", "b_2"), r"b_1 is in .*y/data and not in .*x/latents \(2 such"),
    ],
)
def test_latents_of_another_set(tmp_path, latents, data, message):
    store, _ = make(tmp_path, "x", {name: {"z1": RAMP} for name in latents})
    _, directory = make(tmp_path, "y", {name: {"z1": RAMP} for name in data})
    with pytest.raises(UserError, match=message):
        check_labelled(open_sets([store], [directory]))
