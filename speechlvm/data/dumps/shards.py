"""What each job writes of a store, and how the parts of all jobs are joined: archives, and JSON that describes them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_write, disk_errors, read_json, remove_leftovers_of, write_json


def start_part(directory: Path, job: int, archive: Path) -> None:
    """Make room for a job's part: what an earlier run wrote for it, or left behind when it was killed, is removed."""
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"part.{job}.json").unlink(missing_ok=True)
        remove_leftovers_of(archive)


def remove_parts_beyond(directory: Path, jobs: int, *stems: str) -> None:
    """Remove the files <stem>.<job>.* of an earlier run with more jobs."""
    for stale in directory.glob("*.*.*"):
        stem, number, _ = stale.name.split(".", 2)
        if stem in stems and number.isdigit() and int(number) > jobs:
            with disk_errors(stale):
                stale.unlink()


def write_part_file(
    directory: Path, job: int, archive: Path, entries: list[list], inputs: dict, **further: Any
) -> None:
    """Say that a part is complete; the last thing that a job writes.

    Args:
        directory: of the dump.
        job: number of the part.
        archive: what was written.
        entries: [utterance, offset, length, ...].
        inputs: what it was made from.
        further: to be kept beside.
    """
    described = {"archive": archive.name, "bytes": archive.stat().st_size, "inputs": inputs, "utterances": entries}
    write_json(directory / f"part.{job}.json", {**described, **further})


def damaged_parts(directory: Path) -> set[int]:
    """Jobs whose archive is not there as long as it was written, or that lack the file that describes it."""
    archives = {path.name for path in directory.glob("*.*.ark")}
    for index in directory.glob("*.scp"):
        with open(index, encoding="utf-8", errors="replace") as stream:
            archives |= {os.path.basename(line.rpartition(":")[0]) for line in stream}
    jobs = {int(match[1]) for name in archives if (match := re.fullmatch(r"[a-z]+\.([0-9]{1,9})\.ark", name))}
    for path in directory.glob("part.*.json"):
        job = int(path.name.split(".")[1])
        try:
            part = read_json(path)
            intact = (directory / part["archive"]).stat().st_size == part["bytes"]
        except (OSError, KeyError, TypeError, UserError):
            intact = False
        (jobs.discard if intact else jobs.add)(job)
    return jobs


def write_kaldi_record(stream: IO[bytes], utterance: str, value: np.ndarray) -> int:
    """Append a record as kaldiio writes arrays; returns its offset, as in scp files."""
    import kaldiio

    offset = stream.tell() + len(utterance.encode()) + 1
    kaldiio.save_ark(stream, {utterance: value})
    return offset


def merge_parts(directory: Path, jobs: int, stem: str, counts: str) -> list[tuple]:
    """Join the parts of all jobs into <stem>.scp and a file of the utterances' lengths; more parts are removed.

    Args:
        directory: with <stem>.<job>.ark, and part.<job>.json whose "utterances" are [utterance, offset, length, ...].
        jobs: number of parts.
        stem: of the archives.
        counts: name of the file of lengths.

    Returns:
        (utterance, job, offset, length, ...), sorted.

    Raises:
        UserError: a part is missing.
    """
    lines = sorted(
        (utterance, job, *rest)
        for job in range(1, jobs + 1)
        for utterance, *rest in read_json(directory / f"part.{job}.json")["utterances"]
    )
    root = directory.absolute()
    with atomic_write(directory / counts) as stream:
        stream.writelines(f"{utterance} {length}\n" for utterance, _, _, length, *_ in lines)
    with atomic_write(directory / f"{stem}.scp") as stream:
        stream.writelines(f"{utterance} {root / stem}.{job}.ark:{offset}\n" for utterance, job, offset, *_ in lines)
    remove_parts_beyond(directory, jobs, stem, "part")
    return lines
