"""Sharded results: every job writes one shard of a directory, and a final merge combines them.

<directory>/<stem>.<job>.ark     records of the job's utterances
<directory>/shard.<job>.json     what job <job> wrote, and from which inputs; written last
<directory>/<stem>.scp           of all shards: "<utt> <archive>:<offset>"
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, disk_errors, read_json, remove_leftovers_of, write_json


@dataclass
class Shard:
    """The shard that a job is writing.

    Attributes:
        streams: open archives, by stem.
        entries: [utterance, offset, ...] of each record, by stem.
        about: further fields of shard.<job>.json.
    """

    streams: dict[str, IO[bytes]]
    entries: dict[str, list[list]]
    about: dict[str, Any] = field(default_factory=dict)


@contextmanager
def write_shard(directory: Path, job: int, inputs: dict[str, Any], stems: Collection[str] = ()) -> Iterator[Shard]:
    """Write the shard of a job, complete or not at all.

    Args:
        directory: directory of the results.
        job: number of the shard, from 1.
        inputs: everything that determines the shard; stored in it.
        stems: names of the archives.
    """
    path = directory / f"shard.{job}.json"
    archives = {stem: directory / f"{stem}.{job}.ark" for stem in stems}
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    with ExitStack() as stack:
        for archive in archives.values():
            remove_leftovers_of(archive)
        streams = {stem: stack.enter_context(atomic_write(archive, "wb")) for stem, archive in archives.items()}
        shard = Shard(streams, {stem: [] for stem in stems})
        yield shard
    sizes = {archive.name: archive.stat().st_size for archive in archives.values()}
    write_json(path, {"inputs": inputs, "bytes": sizes, "entries": shard.entries, **shard.about})


def read_shards(directory: Path, jobs: int) -> list[dict[str, Any]]:
    """The contents of shard.<job>.json for all jobs.

    Raises:
        UserError: one is missing or malformed.
    """
    return [read_json(directory / f"shard.{job}.json") for job in range(1, jobs + 1)]


def write_index(directory: Path, shards: list[dict[str, Any]], stem: str, lengths: str = "") -> list[tuple]:
    """Write <stem>.scp of all shards.

    Args:
        directory: directory of the results.
        shards: result of `read_shards`.
        stem: name of the archives.
        lengths: name of a file for the lengths of utterances, if entries are [utterance, offset, length, ...].

    Returns:
        (utterance, job, offset, ...), sorted.
    """
    lines = sorted(
        (utterance, job, *rest)
        for job, shard in enumerate(shards, start=1)
        for utterance, *rest in shard["entries"].get(stem, [])
    )
    root = directory.absolute()
    if lengths:
        with atomic_write(directory / lengths) as stream:
            stream.writelines(f"{utterance} {length}\n" for utterance, _, _, length, *_ in lines)
    with atomic_write(directory / f"{stem}.scp") as stream:
        stream.writelines(f"{utterance} {root / stem}.{job}.ark:{offset}\n" for utterance, job, offset, *_ in lines)
    return lines


def remove_shards_beyond(directory: Path, jobs: int, *stems: str) -> None:
    """Remove the files <stem>.<job>.* and shard.<job>.json of an earlier run with more jobs."""
    for stale in directory.glob("*.*.*"):
        stem, number, _ = stale.name.split(".", 2)
        if stem in ("shard", *stems) and number.isdigit() and int(number) > jobs:
            with disk_errors(stale):
                stale.unlink()


def damaged_shards(directory: Path) -> set[int]:
    """Jobs with an archive that is missing, not as long as written, or not described by a shard.<job>.json."""
    archives = {path.name for path in directory.glob("*.*.ark")}
    for index in directory.glob("*.scp"):
        with open(index, encoding="utf-8", errors="replace") as stream:
            archives |= {os.path.basename(line.rpartition(":")[0]) for line in stream}
    jobs = {int(match[1]) for name in archives if (match := re.fullmatch(r"[^.]+\.([0-9]{1,9})\.ark", name))}
    for path in directory.glob("shard.*.json"):
        job = int(path.name.split(".")[1])
        try:
            sizes = read_json(path)["bytes"]
            intact = all((directory / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, KeyError, TypeError, AttributeError, UserError):
            intact = False
        (jobs.discard if intact else jobs.add)(job)
    return jobs
