"""Speaker classification: whether averages over utterances predict gender or height (source A, figures 4 to 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.latents import comparison
from speechlvm.latents.labelled import Set, Unsuitable, of_utterances, require_labels

GENDER_DIMENSIONS, HEIGHT_DIMENSIONS = 1, 2
HEIGHTS = SHORT, MEDIUM, TALL = "< 175 cm", "175-185 cm", "> 185 cm"
GENDERS = {"f": "women", "m": "men"}


def height_class(height_cm: float) -> str:
    """One of source A's three classes."""
    return SHORT if height_cm < 175 else TALL if height_cm > 185 else MEDIUM


def analyse_gender(sets: Sequence[Set], largest_k: int | None) -> dict[str, Any]:
    """Compare representations by how well they classify gender.

    Raises:
        Unsuitable: data without genders, a speaker without one, or data of one gender.
    """
    require_labels(sets, spk2gender="spk2gender")
    for item in sets:
        if lacking := sorted(set(item.data.spk2utt) - set(item.data.spk2gender)):
            raise Unsuitable(
                f"{item.directory / 'spk2gender'}: no line for {' '.join(lacking)}; expected m or f for each speaker; "
                "add what is missing"
            )
    items = of_utterances(sets, lambda data, speaker: data.spk2gender.get(speaker))
    return comparison.compare(
        items, sets[0].store, GENDER_DIMENSIONS, largest_k, by_speaker=True, what="utterances by gender"
    )


def analyse_height(sets: Sequence[Set], largest_k: int | None) -> dict[str, Any]:
    """Compare representations by how well they classify height; "men" and "women" are separate, under "groups".

    A group without two classes is left out with a note.

    Raises:
        Unsuitable: data without heights or genders, or fewer than two classes in both groups.
    """
    require_labels(sets, spk2height_cm="spk2height", spk2gender="spk2gender")
    groups, notes = {}, _unknown(sets, "height", "spk2height_cm") + _unknown(sets, "gender", "spk2gender")
    for gender, name in GENDERS.items():
        items = of_utterances(sets, lambda data, speaker, gender=gender: _height_of(data, speaker, gender))
        what = f"utterances of {name} by height"
        try:
            groups[name] = comparison.compare(
                items, sets[0].store, HEIGHT_DIMENSIONS, largest_k, by_speaker=True, what=what
            )
        except Unsuitable as error:
            notes.append(str(error))
    if not groups:
        raise Unsuitable("; ".join(notes))
    return {"groups": groups, "notes": notes + [note for group in groups.values() for note in group.pop("notes")]}


def _height_of(data: DataDirectory, speaker: str, gender: str) -> str | None:
    height = data.spk2height_cm.get(speaker) if data.spk2gender.get(speaker) == gender else None
    return None if height is None else height_class(height)


def _unknown(sets: Sequence[Set], what: str, attribute: str) -> list[str]:
    speakers = {speaker for item in sets for speaker in item.data.spk2utt}
    known = {speaker for item in sets for speaker in getattr(item.data, attribute)}
    return [f"left out, as their {what} is not known: {' '.join(sorted(speakers - known))}"] if speakers - known else []
