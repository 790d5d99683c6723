"""Phone classification: whether averages over phones separate the phones of single speakers (source A, figure 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from speechlvm.data.kaldi.phones import fold
from speechlvm.latents import comparison
from speechlvm.latents.labelled import Set, Unsuitable, of_phones, require_labels

DIMENSIONS = 5


def chosen_speakers(sets: Sequence[Set], speaker: str, count: int) -> list[str]:
    """`speaker` and others, spread evenly over all speakers with phones; `count` in total, or all.

    Args:
        sets: sets with phones.
        speaker: first speaker of the result; if it has no phones, the first of all.
        count: number of speakers, at least 1.
    """
    everybody = sorted({item.data.utt2spk[utterance] for item in sets for utterance in item.data.phones})
    first = speaker if speaker in everybody else everybody[0]
    others = [name for name in everybody if name != first]
    count = min(count - 1, len(others))
    return [first, *(others[(2 * i + 1) * len(others) // (2 * count)] for i in range(count))]


def analyse(
    sets: Sequence[Set],
    speaker: str,
    speakers: int,
    classes: int,
    largest_k: int | None,
    skipped: Collection[str] = (),
) -> dict[str, Any]:
    """Classify the phones of some speakers; speakers with too few phones are left out, with a note.

    Args:
        sets: sets of one model.
        speaker: speaker shown in figures; "" for the first.
        speakers: number of speakers to analyse.
        classes: 61 or 39.
        largest_k: maximum number of neighbours; None: 50, or as many as there are.
        skipped: labels to leave out, before folding.

    Returns:
        A classification with means over speakers as curves, "speaker", and those of each speaker under "speakers".

    Raises:
        Unsuitable: data without phones, or no speaker with two classes of phones.
    """
    require_labels(sets, phones="phones")
    names = chosen_speakers(sets, speaker, speakers)
    notes = [f"speaker {speaker} has no phones"] if speaker not in ("", names[0]) else []
    known = {phone.label for item in sets for phones in item.data.phones.values() for phone in phones}
    if unknown := sorted(set(skipped) - known):
        notes.append(f"--skip_phones: no phone is labelled {' '.join(unknown)}")
    each: dict[str, comparison.Classification] = {}
    for name in names:
        items = of_phones(sets, name, lambda label: None if label in skipped else fold(label, classes))
        what = f"phones of speaker {name}"
        try:
            each[name] = comparison.compare(items, sets[0].store, DIMENSIONS, largest_k, by_speaker=False, what=what)
        except Unsuitable as error:
            notes.append(str(error))
    if not each:
        raise Unsuitable("; ".join(notes))
    shown, *others = each
    if speaker not in ("", shown):
        notes.append(f"shown: speaker {shown}")
    totals: Counter[str] = Counter()
    for one in each.values():
        totals.update(one["classes"])
    for name in others:  # figures show only one speaker
        for found in each[name]["representations"].values():
            del found["places"]
    return {
        "folding": classes,
        "skipped": sorted(skipped),
        "speaker": shown,
        "items": sum(one["items"] for one in each.values()),
        "classes": dict(sorted(totals.items())),
        "left_out": sorted({label for one in each.values() for label in one["left_out"]}),
        "chance": sum(one["chance"] for one in each.values()) / len(each),
        "representations": comparison.mean_over_speakers(each),
        "speakers": each,
        "notes": notes + [note for one in each.values() for note in one.pop("notes")],
    }
