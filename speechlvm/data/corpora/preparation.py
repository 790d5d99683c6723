"""Code shared by all preparations: case-insensitive search, splits, and writing the sets."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.data.log import Log, shown
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import (
    atomic_write,
    files_below,
    hash_value,
    is_done,
    mark_done,
    mark_undone,
    version_of,
    write_json,
)
from speechlvm.utils.lock import locked
from speechlvm.utils.text import counted

FOLDERS_ABOVE = 8  # depth of search for a corpus, such as timit/data/lisa/data/timit/raw/TIMIT
LOSSY = (".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".wma")
PREPARATION, REJECTED = "preparation.json", "rejected.tsv"
ALIGNMENT_BLOCK = 400
NOISE_VARIATION = 8000  # mean |x[t+1] - x[t]|; uniform 16-bit noise has 21845, loud speech below 4000
MISALIGNED = (
    "audio files hold full-scale noise where bytes were lost (as by a transfer in text mode); likelihoods of these "
    "parts are meaningless, so get an intact copy"
)
Item = TypeVar("Item")


def add_max_bad(parser: argparse.ArgumentParser) -> None:
    """Adds the option of preparations that read audio."""
    parser.add_argument(
        "--max_bad", type=_count, default=0, help="audio files that may be rejected; they are listed in rejected.tsv"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}': expected an integer")
    return int(text)


def child(directory: Path, name: str) -> Path | None:
    """The entry of a directory with this name, ignoring case; `name` is in upper case."""
    matches = sorted(path for path in directory.iterdir() if path.name.upper() == name)
    return matches[0] if matches else None


def find_corpus(given: Path, holds: Callable[[Path], bool], parts: Iterable[str], what: str, looked_for: str) -> Path:
    """The directory of a corpus: `given`, the nearest one below it, or its parent if `given` is part of a corpus.

    Args:
        given: where to search.
        holds: whether a directory is that of the corpus.
        parts: names of its subdirectories in upper case; `given` may be one of them.
        what: name of the corpus, for messages.
        looked_for: what the directory must contain, for messages.

    Raises:
        UserError: no such directory, or the corpus is not in it, or more than once.
    """
    if not given.is_dir():
        raise UserError(
            f"{given}: no such directory; give that of the corpus, or one above it (stage 0 says how to get it)"
        )
    places = _places(given, holds, parts)
    if not places:
        raise UserError(
            f"{given}: no {what}; looked for {looked_for} in it and up to {FOLDERS_ABOVE} folders below; give the "
            "directory that contains them"
        )
    if len(places) > 1:
        raise UserError(f"{given}: more than one {what}: {places[0]} and {places[1]}; give one of them")
    return places[0]


def _places(given: Path, holds: Callable[[Path], bool], parts: Iterable[str]) -> list[Path]:
    """All nearest directories that contain a corpus."""
    if given.name.upper() in parts and holds(given.parent):
        return [given.parent]
    level, seen = [given], set()
    for _ in range(FOLDERS_ABOVE):
        if found := [place for place in level if holds(place)]:
            return found
        # stage 0 unpacks to "archives"; after an interruption its contents are incomplete
        below = [path for place in level for path in sorted(place.iterdir()) if path.name != "archives"]
        unseen = {path.resolve(): path for path in below if path.is_dir() and path.resolve() not in seen}
        seen |= unseen.keys()
        level = list(unseen.values())
    return []


def lossy(path: Path) -> str:
    """The error for a lossy copy of a recording of a lossless corpus."""
    return (
        f"{path}: lossy compression, so its samples differ from those of the corpus; expected WAV or FLAC; copy it "
        "again from the corpus, or convert the original file to FLAC"
    )


def corpus_files(log: Log, *roots: Path) -> list[Path]:
    """The files of a corpus at and below some paths, both for reading it and for its `stamp`.

    Raises:
        UserError: a directory cannot be searched.
    """

    def again(folder: Path) -> None:
        log.tolerate("links to folders that are searched anyway were skipped", shown(folder))

    there = [root for root in roots if root.exists()]
    return [path for root in there for path in (files_below(root, again) if root.is_dir() else [root])]


def stamp(files: Iterable[Path]) -> str:
    """Hash of the names and versions (`version_of`) of files; for dangling links, of their names only."""
    versions = []
    for file in files:
        try:
            versions.append([str(file), *version_of(file)])
        except OSError:
            versions.append([str(file)])
    return hash_value(versions)


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in random order, which depends only on the seed; adding a name does not reorder the others."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def read_all(read: Callable[[Item], Log], items: Iterable[Item], jobs: int, log: Log) -> list[Item]:
    """Calls `read` on each item in `jobs` threads (decoders release the GIL) and merges their logs.

    Returns:
        The items that were not rejected.
    """
    items, kept = list(items), []
    with ThreadPoolExecutor(jobs) as pool:
        for item, part in zip(items, pool.map(read, items), strict=True):
            log.add(part)
            if not part.rejected:
                kept.append(item)
    return kept


def misaligned_frames(samples: np.ndarray) -> int:
    """Counts samples in parts that are shifted by one byte: full-scale noise, but speech once shifted back.

    A transfer in text mode that turned CR LF into LF causes this. Headers do not show it.

    Args:
        samples: int16 (num_samples,).

    Returns:
        Number of samples in blocks whose total variation is that of noise and at least four times that of the same
        bytes read one byte later.
    """
    blocks = len(samples) // ALIGNMENT_BLOCK
    if not blocks:
        return 0
    data = samples[: blocks * ALIGNMENT_BLOCK].astype("<i2", copy=False).tobytes()
    later = np.frombuffer(data[1:] + b"\0", "<i2")
    variations = [
        np.abs(np.diff(x.reshape(blocks, ALIGNMENT_BLOCK)[:, :-1].astype(np.int32), axis=1)).mean(axis=1)
        for x in (samples[: blocks * ALIGNMENT_BLOCK], later)
    ]
    shifted = (variations[0] > NOISE_VARIATION) & (variations[0] > 4 * variations[1])
    return int(shifted.sum()) * ALIGNMENT_BLOCK


def describe(name: str, data: DataDirectory, train: DataDirectory, rate_hz: float | None) -> str:
    """One line about a set: its size and, if speakers are known, how many of them are also in the training set.

    Args:
        name: name of the set.
        data: the set.
        train: the training set.
        rate_hz: frames per second; None if frames have no rate, as in handwriting.
    """
    lengths, count, speakers = data.num_samples or data.num_frames, len(data.utt2spk), set(data.utt2spk.values())
    frames = sum(lengths.values())
    line = f"{name}: {counted(count, 'utterances')}, "
    if rate_hz:
        line += f"{frames / rate_hz / 3600:.3f} hours, mean length {frames / rate_hz / count:.2f} s"
    else:
        line += f"{frames} frames, mean length {frames / count:.1f} frames"
    if speakers == set(data.utt2spk):  # one speaker per utterance: speakers are unknown
        return line
    line += f", {counted(len(speakers), 'speakers')}"
    if data.spk2gender:
        sexes = Counter(data.spk2gender.get(speaker, "unknown") for speaker in speakers)
        line += f" ({', '.join(f'{count} {sex}' for sex, count in sorted(sexes.items()))})"
    shared = len(speakers & set(train.utt2spk.values()))
    return line if data is train else f"{line}, {shared} of them also in train"


def is_prepared(out: Path, inputs: dict[str, Any], names: Iterable[str]) -> bool:
    """Whether `prepare_sets` has made these sets from these inputs, and all files they refer to still exist."""
    return is_done(out, inputs) and all(_is_there(out / name) for name in names)


def _is_there(directory: Path) -> bool:
    """Whether a data directory exists, with the audio files or archives it refers to."""
    audio, feats = (
        path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for path in (directory / "wav.scp", directory / "feats.scp")
    )
    named = {line.partition(" ")[2] for line in audio} | {line.partition(" ")[2].rpartition(":")[0] for line in feats}
    return (directory / "utt2spk").exists() and all(Path(path).exists() for path in named)


def prepare_sets(
    out: Path,
    inputs: dict[str, Any],
    names: Iterable[str],
    make: Callable[[], dict[str, DataDirectory]],
    rate_hz: float | None,
    log: Log,
) -> None:
    """Makes the data directories of a corpus unless they are complete: all of them, or none if there are errors.

    Args:
        out: directory in which a directory for each set is written.
        inputs: everything that determines the sets: options, and the `stamp` of the files that `make` reads.
        names: names of the sets.
        make: reads, checks and splits the corpus; the first set is the training set.
        rate_hz: frames per second, or None; for the description only.
        log: what was found so far; `make` adds to it. Rejected files and the reasons are written to
            <out>/rejected.tsv; their number, and all irregularities that were tolerated, to
            <out>/<set>/preparation.json.

    Raises:
        UserError: there are errors (each is printed), too many rejected files, a set is empty, or another preparation
            is running in `out`.
    """
    if not log.failed and is_prepared(out, inputs, names):
        print(f"{out}: complete")
        return
    with locked(out):
        mark_undone(out)
        sets = make()
        for name, data in sets.items():
            if not data.utt2spk and not log.failed:
                log.error(f"{name}: no utterances are left for this set; give more data, or another split")
        log.report()
        train = next(iter(sets.values()))
        for name, data in sets.items():
            write_data_dir(data, out / name)
            if counts := _counts(log):
                write_json(out / name / PREPARATION, counts)
            print(describe(name, data, train, rate_hz))
        if log.rejected:
            with atomic_write(out / REJECTED) as stream:
                stream.writelines(f"{path}\t{reason}\n" for path, reason in sorted(log.rejected.items()))
        else:
            (out / REJECTED).unlink(missing_ok=True)
        mark_done(out, inputs)


def _counts(log: Log) -> dict[str, Any]:
    """Counts of files of the whole corpus, which results must report."""
    tolerated = {kind: len(names) for kind, names in log.tolerated.items()}
    counts = {"rejected": len(log.rejected), "converted": dict(log.converted), "tolerated": tolerated}
    return {name: count for name, count in counts.items() if count}
