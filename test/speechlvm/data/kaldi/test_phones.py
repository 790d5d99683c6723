"""TIMIT's codes: 61 of them, each of one manner, folded into 39 classes."""

import pytest

from speechlvm.data.kaldi.phones import CODES, MANNERS, RUSSIAN_CODES, fold, manner


def test_there_are_61_codes_each_of_one_manner():
    assert len(CODES) == len(set(CODES)) == 61
    assert {manner(code) for code in CODES} == set(MANNERS)


def test_they_fold_into_39_classes_that_fold_into_themselves():
    classes = {fold(code, 39) for code in CODES}
    assert len(classes - {None}) == 39
    assert [code for code in CODES if fold(code, 39) is None] == ["q"]
    assert all(fold(name, 39) == name for name in classes - {None})
    assert {manner(name) for name in classes - {None}} == set(MANNERS) - {"closure"}


@pytest.mark.parametrize(
    ("code", "folded"),
    [
        ("ao", "aa"),
        ("ax-h", "ah"),
        ("zh", "sh"),
        ("nx", "n"),
        ("pcl", "sil"),
        ("h#", "sil"),
        ("ux", "uw"),
        ("dx", "dx"),
    ],
)
def test_the_folding_of_lee_and_hon(code, folded):
    assert fold(code, 39) == folded
    assert fold(code, 61) == code


def test_labels_of_other_corpora_stay_themselves():
    assert fold("@L", 39) == fold("@L", 61) == "@L"
    assert manner("@L") == "other"


def test_russian_phones_are_none_of_timits_and_stay_themselves():
    assert len(RUSSIAN_CODES) == len(set(RUSSIAN_CODES)) == 50 and not {*RUSSIAN_CODES} & {*CODES}
    assert all(fold(code, 39) == code for code in RUSSIAN_CODES)
    assert {manner(code) for code in RUSSIAN_CODES} == set(MANNERS) - {"closure", "silence"}
    assert [manner(code) for code in ("ru_y", "ru_hh", "y", "hh")] == ["vowel", "fricative", "semivowel", "semivowel"]


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match="48 classes"):
        fold("aa", 48)
