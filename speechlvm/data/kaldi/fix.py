"""Fixes data directories by removing and sorting lines, and by cutting utterances that end slightly late."""

from __future__ import annotations

import os
import shutil
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from speechlvm.data.kaldi.directory import DataDirectory, sorted_by_bytes, write_lines
from speechlvm.data.kaldi.scp import Excerpt
from speechlvm.data.kaldi.tables import FIXER, TABLES, Contents, Line
from speechlvm.data.kaldi.validate import (
    COMPUTED_FILES,
    LATE_SECONDS,
    Files,
    audio_lengths,
    check_pipes,
    check_vectors,
    examine,
    recording_infos,
    seconds_late,
)
from speechlvm.data.log import examples
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors
from speechlvm.utils.text import counted

if TYPE_CHECKING:
    from speechlvm.data.headers import AudioInfo

VECTOR_FILES = ("channels", "rate_hz")
UNCHANGED = "not fixed: nothing was changed"


def fix(path: str | Path, allow_pipes: bool = False) -> list[str]:
    """Fixes what can be fixed without guessing; returns a description of each change.

    Line endings, byte order marks, whitespace, order and repeated lines are corrected; utterances that are missing from
    a mandatory file are removed from all files; utterances that end up to `LATE_SECONDS` after their recordings are cut
    there; spk2utt and utt2num_samples are recomputed. Anything that would need guessing (a malformed line, an utterance
    with two different values, an unreadable audio file) is an error.

    Args:
        path: the directory.
        allow_pipes: run commands in wav.scp.

    Raises:
        UserError: the directory would still not be valid; nothing was changed.
    """
    files = examine(Path(path))
    found, files.errors = files.errors, []
    for name, table in files.items():
        malformed = () if name in COMPUTED_FILES else table.malformed.values()
        files.errors += table.errors if table.unreadable else malformed
    if not allow_pipes:
        check_pipes(files)
    if files.errors:
        raise UserError(f"{files.errors[0]} ({UNCHANGED})")
    done: list[str] = []
    for name, table in files.items():
        _fix_lines(name, table, done)
    _fix_keys(files, done)
    lengths: dict[str, int] = {}
    if files.of_vectors:
        check_vectors(files)
    else:
        infos = recording_infos(files, allow_pipes)
        _cut_ends(files, infos, done)
        lengths = audio_lengths(files, infos)
    if files.errors:
        raise _refusal(files.errors)
    _recompute(files, lengths, done)
    _replace(files, found, done)
    return done


def _replace(files: Files, original_errors: list[str], done: list[str]) -> None:
    """Writes the fixed directory to a temporary one, checks it, and moves its files to their places."""
    path = files.path
    temporary = path.resolve().with_name(f".{path.resolve().name}.{os.getpid()}.tmp")
    kept = {name: table for name, table in files.items() if table.lines}
    done += [f"{path / name}: removed, as no line was left" for name in files if name not in kept]
    with disk_errors(path):
        temporary.mkdir()
    try:
        for name, table in kept.items():
            write_lines(temporary / name, [line.text for line in table.lines])
        for name in VECTOR_FILES:
            if (path / name).is_file():
                shutil.copy(path / name, temporary / name)
        remaining = [error.replace(str(temporary), str(path)) for error in examine(temporary).errors]
        if remaining:
            # Line numbers of the user's file are more useful than those of its replacement.
            raise _refusal([error for error in original_errors if not error.endswith(FIXER)] or remaining)
        for name in files if done else ():
            if name in kept:
                os.replace(temporary / name, path / name)
            else:
                (path / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refusal(errors: list[str]) -> UserError:
    number = f", {len(errors)} errors must be fixed manually" if len(errors) > 1 else ""
    return UserError(f"{errors[0]} (not fixed{number}: nothing was changed)")


def _fix_lines(name: str, contents: Contents, done: list[str]) -> None:
    """Fixes order and repeated lines; reading has repaired the bytes."""
    table = TABLES[name]
    done += [f"{error}: repaired" for error in contents.repaired]
    lines: dict[str, Line] = {}
    for line in contents.lines:
        if line.text in lines:
            first = lines[line.text].number
            done.append(f"{contents.path}:{line.number}: removed '{line.text}', a repetition of line {first}")
        lines.setdefault(line.text, line)
    contents.lines = sorted(lines.values(), key=lambda line: line.sort_key(table))
    if contents.lines != list(lines.values()):
        done.append(f"{contents.path}: sorted as LC_ALL=C sorts")


def _fix_keys(files: Files, done: list[str]) -> None:
    """Removes utterances that a mandatory file lacks, and speakers and recordings without utterances."""
    sources = [name for name in files.mandatory if name not in COMPUTED_FILES]
    for name in sources:
        if name not in files:
            raise UserError(f"{files.path / name}: no such file; prepare the data again ({UNCHANGED})")
    keys = {name: set(files.by_key(name)) for name in sources}
    excerpts = files.excerpts()
    if "segments" in files:
        keys["wav.scp"] = {key for key, line in excerpts.items() if line.columns[0] in keys["wav.scp"]}
        keys["segments"] = set(excerpts)
    common = set.intersection(*keys.values())
    if not common:
        raise UserError(
            f"{files.path}: no utterance is in all of {', '.join(keys)}; prepare the data again ({UNCHANGED})"
        )
    known = {"utterance": common, "speaker": {line.rest for line in files["utt2spk"].lines if line.key in common}}
    known["recording"] = {line.columns[0] for key, line in excerpts.items() if key in common}
    for name, table in files.items():
        if name in COMPUTED_FILES:
            continue
        kind = "recording" if name == "wav.scp" and "segments" in files else TABLES[name].key
        for line in table.lines:
            if line.key not in known[kind]:
                lacking = [source for source in keys if line.key not in keys[source]]
                reason = f"not in {', '.join(lacking)}" if kind == "utterance" else "has no utterance"
                done.append(f"{table.path}:{line.number}: removed '{line.text}': {line.key} {reason}")
        table.lines = [line for line in table.lines if line.key in known[kind]]


def _cut_ends(files: Files, infos: dict[str, AudioInfo], done: list[str]) -> None:
    """Cuts utterances that end a little after their recordings, because times were rounded."""
    cut: dict[str, Decimal] = {}
    for key, line in files.excerpts().items():
        excerpt = Excerpt.parse(line.rest)
        info = infos.get(excerpt.recording)
        if info and 0 < (late := seconds_late(excerpt, info)) <= LATE_SECONDS:
            end = f"{Decimal(info.num_samples) / info.rate_hz:.6f}".rstrip("0").rstrip(".")
            lines = files["segments"].lines
            lines[lines.index(line)] = Line(line.number, key, f"{excerpt.recording} {line.columns[1]} {end}")
            cut[key] = late
    if cut:
        done.append(
            f"{files['segments'].path}: {counted(len(cut), 'utterances')} cut at the end of the recording, up to "
            f"{max(cut.values()):.3g} s too late: {examples(list(cut))}"
        )


def _recompute(files: Files, lengths: dict[str, int], done: list[str]) -> None:
    """Computes spk2utt from utt2spk and utt2num_samples from the audio."""
    utt2spk = {line.key: line.rest for line in files["utt2spk"].lines}
    computed = {"spk2utt": {key: " ".join(value) for key, value in DataDirectory(utt2spk).spk2utt.items()}}
    if "wav.scp" in files:
        computed["utt2num_samples"] = {key: str(lengths[key]) for key in sorted_by_bytes(lengths) if key in utt2spk}
    for name, column in computed.items():
        old = files.setdefault(name, Contents(files.path / name))
        found = [(line.key, sorted(line.rest.split())) for line in old.lines]
        if found != [(key, sorted(value.split())) for key, value in column.items()]:  # whitespace and order are free
            source = "utt2spk" if name == "spk2utt" else "the audio files"
            done.append(f"{files.path / name}: recomputed from {source}")
            old.lines = [Line(number, key, value) for number, (key, value) in enumerate(column.items(), 1)]
