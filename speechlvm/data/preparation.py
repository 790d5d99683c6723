"""What the preparations of all corpora share: faults and warnings, entries in any case, draws, and writing the sets."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from speechlvm.data.directory import DataDirectory, write_data_dir
from speechlvm.errors import UserError
from speechlvm.files import is_done, mark_done, mark_undone

NAMED = 5
Item = TypeVar("Item")


class Log:
    """Faults, which stop the preparation, and things tolerated, which are counted and told with some examples."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.tolerated: dict[str, list[str]] = {}

    def fault(self, message: str) -> None:
        """Records something wrong."""
        self.faults.append(message)

    def tolerate(self, kind: str, name: str) -> None:
        """Counts something that is left as it is; `kind` is what warnings say after the count."""
        self.tolerated.setdefault(kind, []).append(name)

    def add(self, other: Log) -> None:
        """Takes over what another log holds."""
        self.faults += other.faults
        for kind, names in other.tolerated.items():
            self.tolerated.setdefault(kind, []).extend(names)

    def report(self) -> None:
        """Prints warnings, then faults.

        Raises:
            UserError: there are faults.
        """
        for kind, names in sorted(self.tolerated.items()):
            examples = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            warn(f"{len(names)} {kind}: {examples}")
        self.tolerated = {}
        for fault in self.faults[:-1]:
            print(f"error: {fault}", file=sys.stderr)
        if self.faults:
            more = f" ({len(self.faults)} faults in all; nothing was written)" if len(self.faults) > 1 else ""
            raise UserError(self.faults[-1] + more)


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"warning: {message}", file=sys.stderr)


def child(directory: Path, name: str) -> Path | None:
    """An entry of a directory by its name in capitals, whatever its case."""
    matches = sorted(path for path in directory.iterdir() if path.name.upper() == name)
    return matches[0] if matches else None


def files_below(root: Path) -> Iterator[Path]:
    """All files in a directory at any depth; links are followed, but no directory is searched twice.

    Raises:
        UserError: a directory cannot be searched; what is in it would be missed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be searched ({error.strerror}); check its permissions")

    searched: set[tuple[int, int]] = set()
    for home, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        status = os.stat(home)
        if (status.st_dev, status.st_ino) in searched:
            folders.clear()
            continue
        searched.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (Path(home, name) for name in sorted(names))


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The same order for a seed on every machine, in which a name's place depends on no other name."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def read_all(read: Callable[[Item], Log], items: Iterable[Item], jobs: int, log: Log) -> None:
    """Calls `read` on each item in `jobs` threads (decoders work outside Python's lock) and adds up their logs."""
    with ThreadPoolExecutor(jobs) as pool:
        for part in pool.map(read, items):
            log.add(part)


def describe(name: str, data: DataDirectory, train: DataDirectory, rate_hz: float | None) -> str:
    """One line on a set: its size, and how many of its speakers the training set has as well.

    Args:
        name: of the set.
        data: the set.
        train: the training set.
        rate_hz: frames per second; None for sequences that are not sampled at a rate, as strokes.
    """
    lengths, count, speakers = data.num_samples or data.num_frames, len(data.utt2spk), set(data.utt2spk.values())
    frames = sum(lengths.values())
    line = f"{name}: {count} utterances, "
    if rate_hz:
        line += f"{frames / rate_hz / 3600:.3f} hours, mean length {frames / rate_hz / count:.2f} s, "
    else:
        line += f"{frames} frames, mean length {frames / count:.1f} frames, "
    line += f"{len(speakers)} speakers"
    if data.spk2gender:
        sexes = Counter(data.spk2gender.get(speaker, "unknown") for speaker in speakers)
        line += f" ({', '.join(f'{count} {sex}' for sex, count in sorted(sexes.items()))})"
    shared = len(speakers & set(train.utt2spk.values()))
    return line if data is train else f"{line}, {shared} of them also in train"


def _is_there(directory: Path) -> bool:
    """Whether a data directory is there, and the archives that it names."""
    feats = directory / "feats.scp"
    lines = feats.read_text(encoding="utf-8").splitlines() if feats.exists() else []
    archives = {line.partition(" ")[2].rpartition(":")[0] for line in lines}
    return (directory / "utt2spk").exists() and all(Path(archive).exists() for archive in archives)


def prepare_sets(
    out: Path,
    inputs: dict[str, Any],
    names: Iterable[str],
    make: Callable[[Log], dict[str, DataDirectory]],
    rate_hz: float | None,
) -> None:
    """Makes the data directories of a corpus, unless they are complete; all of them, or none if anything is wrong.

    Args:
        out: where a directory for each set is written.
        inputs: what the sets are a function of: options, and names, sizes and times of the corpus's files.
        names: of the sets.
        make: reads and checks the corpus and divides it; the first set is the training set.
        rate_hz: frames per second, or None; for the description only.

    Raises:
        UserError: there are faults (each is printed), or a set is empty.
    """
    if is_done(out, inputs) and all(_is_there(out / name) for name in names):
        print(f"{out}: complete")
        return
    mark_undone(out)
    log = Log()
    sets = make(log)
    for name, data in sets.items():
        if not data.utt2spk and not log.faults:
            log.fault(f"{name}: no utterances are left for this set; give more data, or a division that fills it")
    log.report()
    train = next(iter(sets.values()))
    for name, data in sets.items():
        write_data_dir(data, out / name)
        print(describe(name, data, train, rate_hz))
    mark_done(out, inputs)
