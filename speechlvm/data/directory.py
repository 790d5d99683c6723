"""Kaldi data directories: reading, writing, checking and fixing them (the files are described in `tables`).

Relative paths in ``wav.scp`` are relative to the current directory, which is the recipe's; what this package writes
itself has absolute paths.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from speechlvm.data.tables import FIXER, TABLES, Contents, Line, read_table, unsafe_id
from speechlvm.data.vectors import count_frames, read_channels, write_channels
from speechlvm.errors import UserError
from speechlvm.files import atomic_write, disk_errors

AUDIO_FILES = ("wav.scp", "utt2num_samples")
VECTOR_FILES = ("feats.scp", "utt2num_frames")
COMPUTED_FILES = ("spk2utt", "utt2num_samples")
SEGMENTS, NO_SEGMENTS = "segments", "segments are not supported; cut the recordings into one file each"


class Segment(NamedTuple):
    """A labelled stretch [start_sample, end_sample) of an utterance."""

    start_sample: int
    end_sample: int
    label: str


@dataclass
class DataDirectory:
    """The contents of a data directory; utterances and speakers are in the order of LC_ALL=C.

    What the corpus does not have is empty. `phones` and `words` hold segments sorted by their start. `channels` and
    `rate_hz` are of vectors only (see `vectors`).
    """

    utt2spk: dict[str, str]
    wav: dict[str, Path] = field(default_factory=dict)
    num_samples: dict[str, int] = field(default_factory=dict)
    feats: dict[str, str] = field(default_factory=dict)
    num_frames: dict[str, int] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    spk2gender: dict[str, str] = field(default_factory=dict)
    spk2height_cm: dict[str, float] = field(default_factory=dict)
    spk2dialect: dict[str, str] = field(default_factory=dict)
    phones: dict[str, list[Segment]] = field(default_factory=dict)
    words: dict[str, list[Segment]] = field(default_factory=dict)
    channels: dict[str, str] = field(default_factory=dict)
    rate_hz: float | None = None

    @property
    def utterances(self) -> list[str]:
        """All utterance ids in order."""
        return _sorted(self.utt2spk)

    @property
    def spk2utt(self) -> dict[str, list[str]]:
        """The utterances of each speaker."""
        result: dict[str, list[str]] = {speaker: [] for speaker in _sorted(set(self.utt2spk.values()))}
        for utterance in self.utterances:
            result[self.utt2spk[utterance]].append(utterance)
        return result


# Where the columns of each file live in DataDirectory, and how they are written and read.
ATTRIBUTES: dict[str, tuple[str, Callable]] = {
    "utt2spk": ("utt2spk", str),
    "wav.scp": ("wav", Path),
    "utt2num_samples": ("num_samples", int),
    "feats.scp": ("feats", str),
    "utt2num_frames": ("num_frames", int),
    "text": ("text", str),
    "spk2gender": ("spk2gender", str),
    "spk2height": ("spk2height_cm", float),
    "spk2dialect": ("spk2dialect", str),
    "phones": ("phones", str),
    "words": ("words", str),
}


def load_data_dir(path: str | Path) -> DataDirectory:
    """Reads a data directory, without looking at its audio files.

    Raises:
        UserError: the first fault that `validate` finds, and how many there are.
    """
    contents, faults = _examine(Path(path))
    if faults:
        more = f" (and {len(faults) - 1} more; utils/validate_data_dir.sh {path} lists all)" if len(faults) > 1 else ""
        raise UserError(faults[0] + more)
    values: dict[str, dict] = {}
    for name, (attribute, convert) in ATTRIBUTES.items():
        column = values.setdefault(attribute, {})
        for line in contents[name].lines if name in contents else []:
            if TABLES[name].segments:
                start, end, label = line.rest.split()
                column.setdefault(line.key, []).append(Segment(int(start), int(end), label))
            else:
                column[line.key] = convert(line.rest)
    channels, rate_hz = read_channels(Path(path)) if _of_vectors(contents) else ({}, None)
    return DataDirectory(**values, channels=channels, rate_hz=rate_hz)


def write_data_dir(data: DataDirectory, path: str | Path) -> None:
    """Writes a data directory, complete or not at all; one that is there already is replaced.

    Raises:
        UserError: if what would be written does not validate (the audio files are not opened).
    """
    path = Path(path)
    temporary, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    with disk_errors(path):
        temporary.mkdir(parents=True)
    try:
        for name, lines in _format(data).items():
            _write_lines(temporary / name, lines)
        if data.channels:
            write_channels(temporary, data.channels, data.rate_hz)
        faults = validate(temporary, check_audio=False)
        if faults:
            raise UserError(faults[0].replace(str(temporary), str(path)))
        if path.exists():
            path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def validate(path: str | Path, check_audio: bool = True) -> list[str]:
    """Lists everything that is wrong with a data directory, one line each: ``file:line: reason; what to do``.

    Args:
        path: the directory.
        check_audio: also read the header of each audio file and compare its length with utt2num_samples; of each
            sequence of vectors, with utt2num_frames.
    """
    contents, faults = _examine(Path(path))
    if check_audio and "wav.scp" in contents:
        lengths, unreadable = _audio_lengths(contents["wav.scp"])
        faults += unreadable + _wrong_counts(contents, lengths)
    if check_audio and _of_vectors(contents):
        faults += _vector_faults(contents)
    return faults


def fix(path: str | Path) -> list[str]:
    """Repairs what can be repaired by removing or sorting lines; says each thing that was done.

    Line ends, byte order marks, blank lines, stray blanks, order and repeated lines are put right; utterances that a
    mandatory file lacks are removed from all files; spk2utt and utt2num_samples are computed anew. What would need a
    guess (a malformed line, an utterance with two different values, an unreadable audio file) is not touched.

    Raises:
        UserError: the directory would still not be valid; nothing was changed.
    """
    path = Path(path)
    contents, original_faults = _examine(path)
    for name, table in contents.items():
        blocking = table.faults if table.unreadable else [] if name in COMPUTED_FILES else table.malformed
        if blocking:
            raise UserError(f"{blocking[0]} (not fixed: nothing was changed)")
    if (path / SEGMENTS).exists():
        raise UserError(f"{path / SEGMENTS}: {NO_SEGMENTS} (not fixed: nothing was changed)")
    done: list[str] = []
    for name, table in contents.items():
        _fix_lines(name, table, done)
    _fix_keys(path, contents, done)
    lengths, faults = _audio_lengths(contents["wav.scp"]) if "wav.scp" in contents else ({}, [])
    _regenerate(path, contents, lengths, done)

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        temporary.mkdir()
    try:
        kept = {name: table for name, table in contents.items() if table.lines}
        done += [f"{path / name}: removed, as no line was left" for name in contents if name not in kept]
        for name, table in kept.items():
            _write_lines(temporary / name, [line.text for line in table.lines])
        remaining = [fault.replace(str(temporary), str(path)) for fault in validate(temporary, check_audio=False)]
        if remaining:
            # The line numbers of the user's own file are of more use than those of the one that was to replace it.
            faults += [fault for fault in original_faults if not fault.endswith(FIXER)] or remaining
        if faults:
            raise UserError(f"{faults[0]} (not fixed, {len(faults)} in all need you: nothing was changed)")
        if not done:
            return []
        for name in contents:
            if name in kept:
                os.replace(temporary / name, path / name)
            else:
                (path / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def _sorted(names) -> list[str]:
    return sorted(names, key=str.encode)


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in lines)


def _format(data: DataDirectory) -> dict[str, list[str]]:
    """The lines of each file that is not empty."""
    files = {"spk2utt": [f"{speaker} {' '.join(utterances)}" for speaker, utterances in data.spk2utt.items()]}
    for name, (attribute, _) in ATTRIBUTES.items():
        column = getattr(data, attribute)
        if not column:
            continue
        if TABLES[name].segments:
            files[name] = [
                f"{key} {start} {end} {label}" for key in _sorted(column) for start, end, label in sorted(column[key])
            ]
        elif name == "spk2height":
            files[name] = [f"{key} {column[key]:g}" for key in _sorted(column)]
        else:
            files[name] = [f"{key} {column[key]}" for key in _sorted(column)]
    return files


def _of_vectors(names) -> bool:
    """Whether the data are vectors; features beside audio are of other toolkits, and nothing here reads them."""
    return "feats.scp" in names and "wav.scp" not in names


def _mandatory(names) -> tuple[str, ...]:
    """Audio directories and directories of vector sequences differ in two files."""
    return ("utt2spk", "spk2utt", *(VECTOR_FILES if _of_vectors(names) else AUDIO_FILES))


def _examine(path: Path) -> tuple[dict[str, Contents], list[str]]:
    """Reads all files; returns them with everything that is wrong short of opening audio files."""
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; expected a data directory (wav.scp, utt2spk, ...)")
    contents = {name: read_table(path / name) for name in TABLES if (path / name).is_file()}
    faults = [fault for table in contents.values() for fault in table.faults]
    missing = [name for name in _mandatory(contents) if name not in contents]
    for name in missing:
        remedy = FIXER if name in COMPUTED_FILES else "prepare the data again"
        faults.append(f"{path / name}: no such file; {remedy}")
    if (path / SEGMENTS).exists():
        faults.append(f"{path / SEGMENTS}: {NO_SEGMENTS}")
    if "utt2spk" in contents and not any(table.unreadable for table in contents.values()):
        faults += _consistency(contents)
    if _of_vectors(contents):
        try:
            read_channels(path)
        except UserError as error:
            faults.append(str(error))
    return contents, faults


def _consistency(contents: dict[str, Contents]) -> list[str]:
    """Keys and values that must agree across files."""
    faults: list[str] = []
    utt2spk = contents["utt2spk"]
    utterances = utt2spk.by_key()
    speakers = {line.rest: line for line in reversed(utt2spk.lines)}
    for line in utterances.values():
        if line.rest and not line.key.startswith(line.rest) and not unsafe_id(line.rest):
            faults.append(
                f"{utt2spk.path}:{line.number}: speaker '{line.rest}' is no prefix of utterance '{line.key}', "
                "so that files sorted by either would differ; rename the utterance"
            )
    for name, table in contents.items():
        known, kind = (utterances, "utterance") if TABLES[name].key == "utterance" else (speakers, "speaker")
        for key, line in table.by_key().items():
            if key not in known:
                faults.append(f"{table.path}:{line.number}: {kind} '{key}' is not in utt2spk; {FIXER}")
        if name in _mandatory(contents):
            present = table.by_key()
            faults += [
                f"{utt2spk.path}:{line.number}: {kind} '{key}' is not in {name}; {FIXER}"
                for key, line in known.items()
                if key and key not in present
            ]
    if "spk2utt" in contents:
        faults += _spk2utt_faults(contents["spk2utt"], utterances)
    if "wav.scp" in contents:
        faults += _same_file_faults(contents["wav.scp"])
    if "utt2num_samples" in contents:
        faults += _segments_past_the_end(contents)
    return faults


def _spk2utt_faults(spk2utt: Contents, utterances: dict[str, Line]) -> list[str]:
    faults, listed = [], {}
    for line in spk2utt.lines:
        for utterance in line.rest.split():
            listed[utterance] = line
            speaker = utterances[utterance].rest if utterance in utterances else None
            if speaker != line.key:
                found = f"utt2spk says '{speaker}'" if speaker else "utt2spk lacks it"
                faults.append(f"{spk2utt.path}:{line.number}: '{utterance}' under '{line.key}', but {found}; {FIXER}")
    return faults + [
        f"{spk2utt.path}: utterance '{key}' of utt2spk line {line.number} is not listed; {FIXER}"
        for key, line in utterances.items()
        if key not in listed
    ]


def _same_file_faults(wav: Contents) -> list[str]:
    faults, first = [], {}
    for line in wav.by_key().values():
        other = first.setdefault(os.path.normpath(line.rest), line)
        if other is not line:
            faults.append(
                f"{wav.path}:{line.number}: the same file as '{other.key}' in line {other.number} ({line.rest}); "
                "remove one of the two"
            )
    return faults


def _segments_past_the_end(contents: dict[str, Contents]) -> list[str]:
    lengths = {line.key: int(line.rest) for line in contents["utt2num_samples"].lines if line.rest.isdecimal()}
    faults = []
    for name in ("phones", "words"):
        for line in contents[name].lines if name in contents else []:
            end = line.rest.split()[1:2]
            if end and end[0].isdecimal() and int(end[0]) > lengths.get(line.key, int(end[0])):
                faults.append(
                    f"{contents[name].path}:{line.number}: {line.key}: ends at {end[0]}, "
                    f"past the audio's {lengths[line.key]} samples; prepare the data again"
                )
    return faults


def _audio_lengths(wav: Contents) -> tuple[dict[str, int], list[str]]:
    """Lengths of all audio files from their headers, and a fault for each that cannot be read."""
    from speechlvm.data.audio import audio_info

    lengths: dict[str, int] = {}
    faults = []
    for line in wav.by_key().values():
        if line.rest.startswith(("~", "|")) or line.rest.endswith("|") or not line.rest:
            continue  # has its own fault already
        try:
            lengths[line.key] = audio_info(line.rest).num_samples
        except UserError as error:
            faults.append(f"{wav.path}:{line.number}: {line.key}: {error}")
    return lengths, faults


def _wrong_counts(contents: dict[str, Contents], lengths: dict[str, int]) -> list[str]:
    counts = contents["utt2num_samples"].by_key() if "utt2num_samples" in contents else {}
    return [
        f"{contents['utt2num_samples'].path}:{line.number}: {key}: {line.rest} samples, "
        f"but the audio has {lengths[key]}; {FIXER}"
        for key, line in counts.items()
        if key in lengths and line.rest != str(lengths[key])
    ]


def _vector_faults(contents: dict[str, Contents]) -> list[str]:
    """Sequences that are not where feats.scp says, or not as long as utt2num_frames says."""
    counts = contents["utt2num_frames"].by_key() if "utt2num_frames" in contents else {}
    faults = []
    for key, line in contents["feats.scp"].by_key().items():
        try:
            frames = count_frames(line.rest, key)
        except UserError as error:
            faults.append(f"{contents['feats.scp'].path}:{line.number}: {key}: {error}")
            continue
        if key in counts and counts[key].rest != str(frames):
            faults.append(
                f"{contents['utt2num_frames'].path}:{counts[key].number}: {key}: {counts[key].rest} frames, "
                f"but the archive has {frames}; prepare the data again"
            )
    return faults


def _fix_lines(name: str, contents: Contents, done: list[str]) -> None:
    """Byte-level repairs have been made in reading; what is left is order and repeated lines."""
    table = TABLES[name]
    cosmetic = ("CRLF", "byte order mark", "blank line", "blanks at", "more than one blank", "no newline")
    done += [
        fault.rsplit(";", 1)[0] + ": repaired"
        for fault in contents.faults
        if any(word in fault.split(": ", 1)[1] for word in cosmetic)
    ]
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
    """Removes utterances that a mandatory file lacks, and speakers without utterances."""
    sources = [name for name in _mandatory(contents) if name not in COMPUTED_FILES]
    for name in sources:
        if name not in contents:
            raise UserError(f"{path / name}: no such file; prepare the data again (not fixed: nothing was changed)")
    keys = {name: set(contents[name].by_key()) for name in sources}
    common = set.intersection(*keys.values())
    if not common:
        raise UserError(
            f"{path}: no utterance is in all of {', '.join(sources)}; prepare the data again "
            "(not fixed: nothing was changed)"
        )
    speakers = {line.rest for line in contents["utt2spk"].lines if line.key in common}
    for name, table in contents.items():
        if name in COMPUTED_FILES:
            continue
        known = common if TABLES[name].key == "utterance" else speakers
        for line in table.lines:
            if line.key not in known:
                lacking = [source for source in sources if line.key not in keys[source]]
                reason = f"not in {', '.join(lacking)}" if TABLES[name].key == "utterance" else "has no utterance"
                done.append(f"{table.path}:{line.number}: removed '{line.text}': {line.key} {reason}")
    for name, table in contents.items():
        if name not in COMPUTED_FILES:
            known = common if TABLES[name].key == "utterance" else speakers
            table.lines = [line for line in table.lines if line.key in known]


def _regenerate(path: Path, contents: dict[str, Contents], lengths: dict[str, int], done: list[str]) -> None:
    """Computes spk2utt from utt2spk and utt2num_samples from the audio."""
    utt2spk = {line.key: line.rest for line in contents["utt2spk"].lines}
    computed = {"spk2utt": {key: " ".join(value) for key, value in DataDirectory(utt2spk).spk2utt.items()}}
    if "wav.scp" in contents:
        computed["utt2num_samples"] = {key: str(lengths[key]) for key in _sorted(lengths) if key in utt2spk}
    for name, column in computed.items():
        old = contents.get(name, Contents(path / name))
        if [line.text for line in old.lines] != [f"{key} {value}" for key, value in column.items()]:
            source = "utt2spk" if name == "spk2utt" else "the audio files"
            done.append(f"{path / name}: computed anew from {source}")
        old.lines = [Line(number, key, value) for number, (key, value) in enumerate(column.items(), 1)]
        contents[name] = old
