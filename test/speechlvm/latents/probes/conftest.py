"""Corpora of phones whose features are known."""

import numpy as np
import pytest
from imitations.representations import write_store

from speechlvm.data.kaldi.directory import DataDirectory, Interval, write_data_dir
from speechlvm.latents.store import Representation

PHONES = ("aa", "b", "d", "iy", "k", "s")
WORDS = {"aa": "an", "b": "bee", "d": "do", "iy": "ear", "k": "key", "s": "see"}
HOP = 128  # two vectors to a step of the clock


def one_hot(labels, seed, noise=0.3):
    """(steps, 6): which phone is spoken at each step of 128 frames, in noise."""
    values = np.eye(len(PHONES))[[PHONES.index(label) for label in labels]]
    return values + noise * np.random.default_rng(seed).standard_normal(values.shape)


def utterance(seed, phones=12):
    """(features, segments, text): phones of 10 to 19 steps of 128 frames, none twice in a row."""
    draws = np.random.default_rng(seed)
    spoken = [draws.choice(PHONES)]
    while len(spoken) < phones:
        spoken.append(draws.choice([phone for phone in PHONES if phone != spoken[-1]]))
    lengths = draws.integers(10, 20, phones)
    ends = np.cumsum(lengths) * HOP
    segments = [
        Interval(int(end - n * HOP), int(end), str(phone)) for end, n, phone in zip(ends, lengths, spoken, strict=True)
    ]
    text = " ".join(WORDS[phone] for phone in spoken)
    return one_hot(np.repeat(spoken, lengths), seed), segments, text


def write_set(root, name, items, hop=HOP, rate_hz=16000, source="model", labels=("phones", "text"), copies=("z1",)):
    """(store, data directory) of {utterance: (features, segments, text)}."""
    store, data = root / f"latents_{name}", root / "data" / name
    dimensions = next(iter(items.values()))[0].shape[1]
    known = [Representation(copy, "latent", hop, hop / 2, dimensions) for copy in copies]
    values = [(u, {r.name: {"mean": item[0].astype(np.float32)} for r in known}) for u, item in items.items()]
    write_store(store, values, known, source=source, set=name, rate_hz=rate_hz)
    columns = {"phones": {u: item[1] for u, item in items.items() if item[1]}}
    columns["text"] = {u: item[2] for u, item in items.items() if item[2]}
    write_data_dir(
        DataDirectory(
            utt2spk=dict.fromkeys(items, name),
            wav={u: root / f"{u}.wav" for u in items},
            num_samples={u: len(item[0]) * hop for u, item in items.items()},
            **{label: columns[label] for label in labels},
        ),
        data,
    )
    return store, data


def write_corpus(root, sets, **options):
    """({set: store}, {set: data directory}) of {set: {utterance: ...}}."""
    written = {name: write_set(root, name, items, **options) for name, items in sets.items()}
    return tuple({name: pair[place] for name, pair in written.items()} for place in (0, 1))


def draw(train=10, valid=4, test=4, same=False):
    """Utterances of three sets; with `same` all sets say what the training set says."""
    counts = {"train": train, "valid": valid, "test": test}
    starts = dict.fromkeys(counts, 0) if same else {"train": 0, "valid": 100, "test": 200}
    return {name: {f"{name}-{i:02d}": utterance(starts[name] + i) for i in range(n)} for name, n in counts.items()}


@pytest.fixture
def known():
    """The functions above."""
    from types import SimpleNamespace

    return SimpleNamespace(
        phones=PHONES, utterance=utterance, write_set=write_set, write_corpus=write_corpus, draw=draw
    )
