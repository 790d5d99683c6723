"""Comparisons of phones and speakers: known accuracies and intervals, what is left out, and data without contrasts."""

import numpy as np
import pytest
from imitations.representations import make

from speechlvm.latents.intervals import over_speakers, wilson
from speechlvm.latents.labelled import Unsuitable, open_sets
from speechlvm.latents.phones import analyse as analyse_phones
from speechlvm.latents.phones import chosen_speakers
from speechlvm.latents.speakers import analyse_gender, analyse_height, height_class
from speechlvm.utils.errors import UserError

STEPS = 4


def opened(*stores_and_directories):
    return open_sets(*zip(*stores_and_directories, strict=True))


def speakers_set(tmp_path, classes, utterances=4, name="test", noise=0.1, **options):
    """A set whose z1 tells the class of speakers 00, 01, ...; z2 is noise."""
    draws, values = np.random.default_rng(0), {}
    for number, place in enumerate(classes):
        for take in range(utterances):
            z1 = np.array([place, -place, 0.0]) + noise * draws.standard_normal((STEPS, 3))
            values[f"{number:02d}_{take}"] = {"z1": z1, "z2": draws.standard_normal((STEPS, 2))}
    return make(tmp_path, name, values, **options)


def keyed(values):
    return {f"{number:02d}": value for number, value in enumerate(values)}


def test_gender_by_averages_of_utterances(tmp_path):
    genders = ["f", "m"] * 5
    sets = opened(speakers_set(tmp_path, [float(g == "m") for g in genders], gender=keyed(genders)))
    result = analyse_gender(sets, None)
    assert (result["items"], result["speakers"], result["classes"]) == (40, 10, {"f": 20, "m": 20})
    assert (result["chance"], result["left_out"]) == (0.5, [])
    z1, z2 = result["representations"]["z1"], result["representations"]["z2"]
    assert (z1["kind"], z1["rate_hz"], z1["dimensions"]) == ("latent", 125.0, 3)
    assert set(z1["curves"]) == {"leave_one_out", "fit_on_all", "leave_one_speaker_out"}
    for protocol, last in (("leave_one_out", 39), ("fit_on_all", 39), ("leave_one_speaker_out", 36)):
        curve = z1["curves"][protocol]
        assert curve["k"] == list(range(1, last + 1))
        assert curve["accuracy"][:15] == [1.0] * 15
        assert curve["low"][:15] == pytest.approx([0.9124] * 15, abs=1e-4)  # Wilson's for 40 of 40
        assert curve["high"][:15] == [1.0] * 15
    low = z1["curves"]["leave_one_out"]["low"][9]
    assert z1["headline"] == {"protocol": "leave_one_out", "k": 10, "accuracy": 1.0, "low": low, "high": 1.0}
    assert 0.2 < z2["headline"]["accuracy"] < 0.8
    assert z2["headline"]["low"] < z2["headline"]["accuracy"] < z2["headline"]["high"]
    # k ends where there are no more neighbours, and the notes say so
    assert any("k is at most 39, as there are 40 items" in note for note in result["notes"])
    assert any("k is at most 36 in leave one speaker out" in note for note in result["notes"])
    places = z1["places"]
    assert len(places["labels"]) == len(places["leave_one_out"]) == len(places["fit_on_all"]) == 40
    assert all((label == "m") == (x > 0) for label, (x,) in zip(places["labels"], places["leave_one_out"], strict=True))


def test_who_tells_speakers_apart_only_is_seen_where_speakers_are_left_out(tmp_path):
    """Speakers in places of their own, as many as there are dimensions; their genders are drawn."""
    draws = np.random.default_rng(1)
    genders = draws.permutation(["f", "m"] * 10)
    homes = 5 * draws.standard_normal((20, 16))
    values = {
        f"{speaker:02d}_{take}": {"z1": homes[speaker] + 0.2 * draws.standard_normal((STEPS, 16))}
        for speaker in range(20)
        for take in range(6)
    }
    sets = opened(make(tmp_path, "test", values, gender=keyed(genders)))
    curves = analyse_gender(sets, 5)["representations"]["z1"]["curves"]
    assert min(curves["leave_one_out"]["accuracy"]) > 0.85
    assert max(curves["leave_one_speaker_out"]["accuracy"]) < 0.75


def test_intervals_are_those_of_speakers_where_these_differ(tmp_path):
    """Half of the women are where men are: 0.75 of the utterances are right, but of 8 speakers, not of 160 items."""
    sets = opened(speakers_set(tmp_path, [0, 1, 1, 1] * 2, gender=keyed("fmfm" * 2), utterances=20))
    result = analyse_gender(sets, 5)["representations"]["z1"]["curves"]["leave_one_speaker_out"]
    wide, narrow = result["high"][4] - result["low"][4], np.ptp(wilson(np.arange(160)[:, None] < 120))
    assert result["accuracy"][4] == pytest.approx(0.75, abs=0.13)
    assert wide > 2 * narrow


def test_speakers_without_a_gender_are_named(tmp_path):
    sets = opened(speakers_set(tmp_path, [0, 1, 0, 1, 5], gender=keyed("fmfm")))
    with pytest.raises(Unsuitable, match=r"spk2gender: no line for 04; expected m or f for each"):
        analyse_gender(sets, None)


@pytest.mark.parametrize(
    ("centimetres", "name"),
    [(174.9, "< 175 cm"), (175.0, "175-185 cm"), (185.0, "175-185 cm"), (185.1, "> 185 cm")],
)
def test_classes_of_height(centimetres, name):
    assert height_class(centimetres) == name


def test_height_of_men_and_of_women(tmp_path):
    heights = [160, 178, 190] * 4 + [165, 180] * 3
    places = [{160: 0.0, 178: 1.0, 190: 2.5, 165: 0.0, 180: 1.0}[height] for height in heights]
    genders = ["m"] * 12 + ["f"] * 6
    sets = opened(speakers_set(tmp_path, places, gender=keyed(genders), height_cm=keyed(map(float, heights))))
    result = analyse_height(sets, None)
    men, women = result["groups"]["men"], result["groups"]["women"]
    assert men["classes"] == {"< 175 cm": 16, "175-185 cm": 16, "> 185 cm": 16}
    assert women["classes"] == {"< 175 cm": 12, "175-185 cm": 12}
    assert men["chance"] == pytest.approx(1 / 3)
    assert men["representations"]["z1"]["headline"]["accuracy"] == 1.0
    assert np.array(men["representations"]["z1"]["places"]["fit_on_all"]).shape == (48, 2)
    assert np.array(women["representations"]["z1"]["places"]["fit_on_all"]).shape == (24, 1)


def test_a_group_without_contrast_is_left_out_and_said(tmp_path):
    sets = opened(
        speakers_set(
            tmp_path, [0, 1, 1, 0, 0], gender=keyed("mmmmf"), height_cm=keyed([170.0, 180.0, 180.0, 170.0, 160.0])
        )
    )
    result = analyse_height(sets, None)
    assert list(result["groups"]) == ["men"]
    assert any("women by height: classes (and items): < 175 cm (4)" in note for note in result["notes"])
    neither = speakers_set(tmp_path, [0, 1], name="neither", gender=keyed("mf"), height_cm=keyed([170.0, 180.0]))
    with pytest.raises(Unsuitable, match="women by height: .*; .* men by height: "):
        analyse_height(opened(neither), None)


def test_classes_of_one_speaker_are_no_reason_to_leave_speakers_out(tmp_path):
    heights = keyed([170.0, 180.0, 180.0, 170.0, 190.0])
    sets = opened(speakers_set(tmp_path, [0, 1, 1, 0, 3], gender=keyed("mmmmm"), height_cm=heights))
    result = analyse_height(sets, None)
    curves = result["groups"]["men"]["representations"]["z1"]["curves"]
    assert (curves["leave_one_out"]["items"], curves["leave_one_speaker_out"]["items"]) == (20, 16)
    assert curves["leave_one_speaker_out"]["accuracy"][0] == 1.0
    assert any("as they have one speaker: > 185 cm" in note for note in result["notes"])
    two = opened(
        speakers_set(tmp_path, [0, 1], gender=keyed("mm"), height_cm=keyed([170.0, 180.0]), name="two", utterances=5)
    )
    assert "leave_one_speaker_out" not in analyse_height(two, None)["groups"]["men"]["representations"]["z1"]["curves"]


def test_more_neighbours_than_there_are_are_refused_when_asked_for(tmp_path):
    sets = opened(speakers_set(tmp_path, [0, 1, 0, 1], gender=keyed("fmfm")))
    with pytest.raises(
        UserError, match="--largest_k 16: one of 16 utterances by gender is left out .* give at most 15"
    ):
        analyse_gender(sets, 16)
    assert analyse_gender(sets, 15)["representations"]["z1"]["curves"]["leave_one_out"]["k"][-1] == 15


PLACES = {"s": (3.0, 0.0), "ih": (0.0, 3.0), "n": (-3.0, -3.0), "q": (9.0, 9.0), "zh": (5.0, -5.0)}


def phones_set(tmp_path, speakers=("a", "b", "c"), noise=0.3):
    """Utterances of phones of one step each; of zh, speaker a has one."""
    draws, values, phones = np.random.default_rng(2), {}, {}
    for speaker in speakers:
        labels = [*draws.permutation(["s", "ih", "n"] * 10), "q", "q", *(["zh"] if speaker == "a" else [])]
        values[f"{speaker}_1"] = {
            "z1": np.array([PLACES[x] for x in labels]) + noise * draws.standard_normal((len(labels), 2))
        }
        phones[f"{speaker}_1"] = [(64 * i, 64 * i + 64, label) for i, label in enumerate(labels)]
    return make(tmp_path, "test", values, phones=phones)


def test_phones_of_speakers_and_their_mean(tmp_path):
    result = analyse_phones(opened(phones_set(tmp_path)), "b", 3, 39, 20)
    assert (result["speaker"], result["folding"], set(result["speakers"])) == ("b", 39, {"a", "b", "c"})
    assert result["classes"] == {"ih": 30, "n": 30, "s": 30}  # q has no class among the 39
    assert result["left_out"] == ["sh"]
    assert result["notes"] == ["phones of speaker a: left out, as they have fewer than two items: sh"]
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["representations"]["z1"]["headline"]["accuracy"] == 1.0
    own = {name: one["representations"]["z1"] for name, one in result["speakers"].items()}
    assert [name for name in own if "places" in own[name]] == ["b"]
    assert set(own["a"]["curves"]) == {"leave_one_out", "fit_on_all"}
    assert analyse_phones(opened(phones_set(tmp_path / "all")), "", 3, 61, 5)["classes"]["q"] == 6


def test_means_and_intervals_are_over_speakers(tmp_path):
    sets = opened(phones_set(tmp_path, noise=3.0))
    result = analyse_phones(sets, "", 3, 61, 10)
    own = np.array(
        [one["representations"]["z1"]["curves"]["leave_one_out"]["accuracy"] for one in result["speakers"].values()]
    )
    curve = result["representations"]["z1"]["curves"]["leave_one_out"]
    np.testing.assert_allclose(curve["accuracy"], own.mean(0))
    low, high = over_speakers(own, np.arange(3))
    assert (np.array(curve["low"]) <= low).all() and (np.array(curve["high"]) >= high).all()
    width = np.diff(wilson(np.arange(96)[:, None] < 96 * own.mean(0)), axis=0)[0]  # of all items together
    assert (np.subtract(curve["high"], curve["low"]) > 0.8 * width).all()  # though two speakers are alike at some k
    assert curve["items"] == 32 * 3
    alone = analyse_phones(sets, "b", 1, 61, 10)
    right = np.arange(32)[:, None] < 32 * own[[list(result["speakers"]).index("b")]]
    [curve] = [alone["representations"]["z1"]["curves"]["leave_one_out"]]
    np.testing.assert_allclose((curve["low"], curve["high"]), wilson(right))


def test_phones_are_left_out_by_their_labels(tmp_path):
    result = analyse_phones(opened(phones_set(tmp_path)), "a", 1, 39, 5, {"n", "zh", "epi"})
    assert (result["classes"], result["skipped"]) == ({"ih": 10, "s": 10}, ["epi", "n", "zh"])
    assert result["notes"] == ["--skip_phones: no phone is labelled epi"]


@pytest.mark.parametrize(
    ("speaker", "count", "expected"),
    [
        ("", 1, ["a"]),
        ("", 2, ["a", "f"]),
        ("e", 3, ["e", "c", "h"]),
        ("x", 2, ["a", "f"]),
        ("c", 99, ["c", "a", "b", "d", "e", "f", "g", "h", "i", "j"]),
    ],
)
def test_speakers_are_spread_over_all(tmp_path, speaker, count, expected):
    names = "abcdefghij"
    values = {f"{name}_1": {"z1": np.ones((2, 1))} for name in names + "z"}
    phones = {f"{name}_1": [(0, 64, "s")] for name in names}  # z has none
    assert chosen_speakers(opened(make(tmp_path, "test", values, phones=phones)), speaker, count) == expected


def test_speakers_without_phones_to_tell_apart_are_named(tmp_path):
    draws = np.random.default_rng(3)
    values = {f"{name}_1": {"z1": draws.standard_normal((8, 2))} for name in "abc"}
    phones = {
        f"{name}_1": [(64 * i, 64 * i + 64, "s" if name == "b" else "sn"[i % 2]) for i in range(8)] for name in "abc"
    }
    sets = opened(make(tmp_path, "test", values, phones=phones))
    result = analyse_phones(sets, "b", 3, 61, 3)
    assert (list(result["speakers"]), result["speaker"]) == (["a", "c"], "a")
    assert result["notes"][0].startswith("phones of speaker b: classes (and items): s (8);")
    assert result["notes"][1] == "shown: speaker a"
    with pytest.raises(Unsuitable, match=r"phones of speaker b: classes \(and items\): s \(8\)"):
        analyse_phones(sets, "b", 1, 61, 3)
    absent = analyse_phones(sets, "FDRW0", 1, 61, 3)
    assert absent["notes"][:2] == ["speaker FDRW0 has no phones", "shown: speaker a"]


def test_chance_is_the_share_of_the_largest_class(tmp_path):
    sets = opened(speakers_set(tmp_path, [0.0] * 6 + [1.0] * 2, gender=keyed("ffffffmm")))
    assert analyse_gender(sets, 5)["chance"] == 0.75
