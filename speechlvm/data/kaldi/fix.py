"""Repair of data directories by removing or sorting lines, and by cutting ends that are slightly late."""

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
    audio_lengths,
    examine,
    excerpts,
    mandatory,
    of_vectors,
    pipe_errors,
    recording_infos,
    seconds_late,
    vector_errors,
)
from speechlvm.data.log import examples
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import disk_errors

if TYPE_CHECKING:
    from speechlvm.data.headers import AudioInfo

OF_VECTORS = ("channels", "rate_hz")
UNCHANGED = "not fixed: nothing was changed"


def fix(path: str | Path, allow_pipes: bool = False) -> list[str]:
    """Repairs what can be repaired without a guess; says each thing that was done.

    Line ends, byte order marks, blank lines, stray blanks, order and repeated lines are put right; utterances that a
    mandatory file lacks are removed from all files; utterances that end up to `LATE_SECONDS` after their recordings are
    cut there; spk2utt and utt2num_samples are computed anew. What would need a
    guess (a malformed line, an utterance with two different values, an unreadable audio file) is not touched.

    Args:
        path: the directory.
        allow_pipes: run commands in wav.scp.

    Raises:
        UserError: the directory would still not be valid; nothing was changed.
    """
    path = Path(path)
    contents, errors = examine(path)
    _refuse_guesses(contents, allow_pipes)
    done: list[str] = []
    for name, table in contents.items():
        _fix_lines(name, table, done)
    _fix_keys(path, contents, done)
    lengths = _lengths(contents, allow_pipes, done)
    _regenerate(path, contents, lengths, done)
    _replace(path, contents, errors, done)
    return done


def _refuse_guesses(contents: dict[str, Contents], allow_pipes: bool) -> None:
    """Raise an error about the first line that cannot be repaired without a guess."""
    for name, table in contents.items():
        blocking = table.errors if table.unreadable else [] if name in COMPUTED_FILES else table.malformed
        if blocking:
            raise UserError(f"{blocking[0]} ({UNCHANGED})")
    if not allow_pipes and (pipes := pipe_errors(contents)):
        raise UserError(f"{pipes[0]} ({UNCHANGED})")


def _lengths(contents: dict[str, Contents], allow_pipes: bool, done: list[str]) -> dict[str, int]:
    """Samples of each utterance, after ends that are late were cut; empty for vectors."""
    if of_vectors(contents):
        lengths, errors = {}, vector_errors(contents)
    else:
        infos, errors = recording_infos(contents, allow_pipes)
        _cut_ends(contents, infos, done)
        lengths, impossible = audio_lengths(contents, infos)
        errors += impossible
    if errors:
        raise _refusal(errors)
    return lengths


def _replace(path: Path, contents: dict[str, Contents], original_errors: list[str], done: list[str]) -> None:
    """Write the repaired directory beside the old one, check it, and put its files in place."""
    temporary = path.resolve().with_name(f".{path.resolve().name}.{os.getpid()}.tmp")
    kept = {name: table for name, table in contents.items() if table.lines}
    done += [f"{path / name}: removed, as no line was left" for name in contents if name not in kept]
    with disk_errors(path):
        temporary.mkdir()
    try:
        for name, table in kept.items():
            write_lines(temporary / name, [line.text for line in table.lines])
        for name in OF_VECTORS:
            if (path / name).is_file():
                shutil.copy(path / name, temporary / name)
        remaining = [error.replace(str(temporary), str(path)) for error in examine(temporary)[1]]
        if remaining:
            # The line numbers of the user's own file are of more use than those of the one that was to replace it.
            raise _refusal([error for error in original_errors if not error.endswith(FIXER)] or remaining)
        for name in contents if done else ():
            if name in kept:
                os.replace(temporary / name, path / name)
            else:
                (path / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refusal(errors: list[str]) -> UserError:
    number = f", {len(errors)} in all need you" if len(errors) > 1 else ""
    return UserError(f"{errors[0]} (not fixed{number}: nothing was changed)")


def _fix_lines(name: str, contents: Contents, done: list[str]) -> None:
    """Byte-level repairs have been made in reading; what is left is order and repeated lines."""
    table = TABLES[name]
    done += [f"{error}: repaired" for error in contents.cosmetic]
    lines: dict[str, Line] = {}
    for line in contents.lines:
        if line.text in lines:
            first = lines[line.text].number
            done.append(f"{contents.path}:{line.number}: removed '{line.text}', a repetition of line {first}")
        lines.setdefault(line.text, line)
    contents.lines = sorted(lines.values(), key=lambda line: line.sort_key(table))
    if contents.lines != list(lines.values()):
        done.append(f"{contents.path}: sorted as LC_ALL=C sorts")


def _fix_keys(path: Path, contents: dict[str, Contents], done: list[str]) -> None:
    """Removes utterances that a mandatory file lacks, and speakers and recordings without utterances."""
    sources = [name for name in mandatory(contents) if name not in COMPUTED_FILES]
    for name in sources:
        if name not in contents:
            raise UserError(f"{path / name}: no such file; prepare the data again ({UNCHANGED})")
    keys = {name: set(contents[name].by_key()) for name in sources}
    if "segments" in contents:
        lines = excerpts(contents).items()
        keys["wav.scp"] = {key for key, line in lines if line.columns[0] in keys["wav.scp"]}
        keys["segments"] = {key for key, _ in lines}
    common = set.intersection(*keys.values())
    if not common:
        raise UserError(f"{path}: no utterance is in all of {', '.join(keys)}; prepare the data again ({UNCHANGED})")
    known = {"utterance": common, "speaker": {x.rest for x in contents["utt2spk"].lines if x.key in common}}
    known["recording"] = {line.columns[0] for key, line in excerpts(contents).items() if key in common}
    for name, table in contents.items():
        if name in COMPUTED_FILES:
            continue
        kind = "recording" if name == "wav.scp" and "segments" in contents else TABLES[name].key
        for line in table.lines:
            if line.key not in known[kind]:
                lacking = [source for source in keys if line.key not in keys[source]]
                reason = f"not in {', '.join(lacking)}" if kind == "utterance" else "has no utterance"
                done.append(f"{table.path}:{line.number}: removed '{line.text}': {line.key} {reason}")
        table.lines = [line for line in table.lines if line.key in known[kind]]


def _cut_ends(contents: dict[str, Contents], infos: dict[str, AudioInfo], done: list[str]) -> None:
    """Cuts utterances that end a little after their recordings, as where times were rounded."""
    cut: dict[str, Decimal] = {}
    for key, line in excerpts(contents).items():
        excerpt = Excerpt.parse(line.rest)
        info = infos.get(excerpt.recording)
        if info and 0 < (late := seconds_late(excerpt, info)) <= LATE_SECONDS:
            end = f"{Decimal(info.num_samples) / info.rate_hz:.6f}".rstrip("0").rstrip(".")
            place = contents["segments"].lines.index(line)
            contents["segments"].lines[place] = Line(line.number, key, f"{excerpt.recording} {line.columns[1]} {end}")
            cut[key] = late
    if cut:
        done.append(
            f"{contents['segments'].path}: {len(cut)} utterances cut at the end of their recordings, which they were "
            f"up to {max(cut.values()):.3g} s past: {examples(list(cut))}"
        )


def _regenerate(path: Path, contents: dict[str, Contents], lengths: dict[str, int], done: list[str]) -> None:
    """Computes spk2utt from utt2spk and utt2num_samples from the audio."""
    utt2spk = {line.key: line.rest for line in contents["utt2spk"].lines}
    computed = {"spk2utt": {key: " ".join(value) for key, value in DataDirectory(utt2spk).spk2utt.items()}}
    if "wav.scp" in contents:
        computed["utt2num_samples"] = {key: str(lengths[key]) for key in sorted_by_bytes(lengths) if key in utt2spk}
    for name, column in computed.items():
        old = contents.get(name, Contents(path / name))
        contents[name] = old
        found = [(line.key, sorted(line.rest.split())) for line in old.lines]
        if found != [(key, sorted(value.split())) for key, value in column.items()]:  # blanks and order are free
            source = "utt2spk" if name == "spk2utt" else "the audio files"
            done.append(f"{path / name}: recomputed from {source}")
            old.lines = [Line(number, key, value) for number, (key, value) in enumerate(column.items(), 1)]
