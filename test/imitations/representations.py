"""Representations of a set beside its data directory, with values and labels as a test wants them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from speechlvm.data.kaldi.directory import DataDirectory, Interval, write_data_dir
from speechlvm.latents.store import Representation, Values, merge, write
from speechlvm.utils.files import mark_done

RATE_HZ = 8000
HOP_FRAMES = 64


def write_store(
    directory: Path, items: Iterable[tuple[str, Values]], described: Sequence[Representation], **info: object
) -> Path:
    """A complete store of one job; `info` replaces fields of info.json."""
    write(directory, 1, items, described, {})
    known = {"source": "model", "set": "test", "rate_hz": RATE_HZ, "data_hash": "0", "num_samples": 100}
    merge(directory, 1, known | info)
    mark_done(directory, {"made": "here"})
    return directory


def make(
    root: Path,
    name: str,
    values: Mapping[str, Mapping[str, np.ndarray]],
    *,
    phones: Mapping[str, Sequence[tuple[int, int, str]]] | None = None,
    gender: Mapping[str, str] | None = None,
    height_cm: Mapping[str, float] | None = None,
    source: str = "model",
    kind: str = "latent",
) -> tuple[Path, Path]:
    """<root>/<name>/latents and <root>/<name>/data; audio is named, not written.

    Args:
        root: directory.
        name: of the set.
        values: utterance -> representation -> (steps, D); steps are 64 frames, the first centred at frame 32. What is
            before "_" in an utterance's name is its speaker.
        phones: utterance -> (start frame, end frame, label).
        gender: speaker -> m or f.
        height_cm: speaker -> height.
        source: of the representations.
        kind: of all of them.
    """
    store, data = root / name / "latents", root / name / "data"
    first = next(iter(values.values()))
    described = [Representation(key, kind, HOP_FRAMES, HOP_FRAMES / 2, array.shape[1]) for key, array in first.items()]
    items = (
        (utterance, {key: {"mean": array.astype(np.float32)} for key, array in of.items()})
        for utterance, of in values.items()
    )
    write_store(store, items, described, source=source, set=name, data_hash=name)
    lengths = {utterance: len(next(iter(of.values()))) * HOP_FRAMES for utterance, of in values.items()}
    write_data_dir(
        DataDirectory(
            {utterance: utterance.partition("_")[0] for utterance in values},
            wav={utterance: root / f"{utterance}.wav" for utterance in values},
            num_samples=lengths,
            phones={utterance: [Interval(*one) for one in places] for utterance, places in (phones or {}).items()},
            spk2gender=dict(gender or {}),
            spk2height_cm=dict(height_cm or {}),
        ),
        data,
    )
    return store, data
