"""Validation of data directories: each file alone, files against each other, and against the audio or archives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from speechlvm.data.kaldi.matrices import count_frames, read_channels
from speechlvm.data.kaldi.scp import ALLOW, Excerpt, entry, local_file
from speechlvm.data.kaldi.tables import FIXER, SAMPLE_NUMBER, TABLES, Contents, Line, is_pipe, read_table
from speechlvm.utils.errors import UserError

if TYPE_CHECKING:
    from speechlvm.data.headers import AudioInfo
    from speechlvm.data.log import Log

COMPUTED_FILES = ("spk2utt", "utt2num_samples")
ONE_SET = "leave it in one of the sets"
LATE_SECONDS = Decimal("0.5")  # by which rounded times may exceed a recording; Kaldi cuts such ends, too


class Files(dict[str, Contents]):
    """The files of a data directory by name, and every error found so far.

    Attributes:
        path: the directory.
        errors: messages ``file:line: reason; what to do``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__({name: read_table(path / name) for name in TABLES if (path / name).is_file()})
        self.path = path
        self.errors = [error for table in self.values() for error in table.errors]

    def error(self, name: str, line: Line, reason: str) -> None:
        """Records an error in a line of a file."""
        self.errors.append(f"{self.path / name}:{line.number}: {reason}")

    def by_key(self, name: str) -> dict[str, Line]:
        """First line of each key of a file, if there is one."""
        return self[name].by_key() if name in self else {}

    @property
    def of_vectors(self) -> bool:
        """Whether the data are vectors; features next to audio belong to other toolkits, and are not read."""
        return "feats.scp" in self and "wav.scp" not in self

    @property
    def mandatory(self) -> tuple[str, ...]:
        """Names of the files that must exist and have a line for each utterance or speaker."""
        data = ("feats.scp", "utt2num_frames") if self.of_vectors else ("wav.scp", "utt2num_samples")
        return ("utt2spk", "spk2utt", *data)

    def excerpts(self) -> dict[str, Line]:
        """The well-formed lines of segments, by utterance."""
        return {key: line for key, line in self.by_key("segments").items() if line not in self["segments"].malformed}

    def recordings(self) -> dict[str, Line]:
        """The required keys of wav.scp, each with a line that names it."""
        if "segments" not in self:
            return self.by_key("utt2spk")
        return {line.columns[0]: line for line in reversed(self.excerpts().values())}


def validate(
    path: str | Path, check_audio: bool = True, allow_pipes: bool = False, log: Log | None = None
) -> list[str]:
    """All errors of a data directory, one line each: ``file:line: reason; what to do``.

    Args:
        path: the directory.
        check_audio: also read the header of each audio file and compare its length with utt2num_samples (for vectors:
            utt2num_frames).
        allow_pipes: accept commands in wav.scp, and run them to check the audio.
        log: counts audio files with oddities.
    """
    files = examine(Path(path))
    if not allow_pipes:
        check_pipes(files)
    if check_audio and "wav.scp" in files:
        lengths = audio_lengths(files, recording_infos(files, allow_pipes, log))
        for key, line in files.by_key("utt2num_samples").items():
            if key in lengths and line.rest != str(lengths[key]):
                reason = f"{key}: {line.rest} samples, but the audio has {lengths[key]}; {FIXER}"
                files.error("utt2num_samples", line, reason)
    if check_audio and files.of_vectors:
        check_vectors(files)
    return files.errors


def examine(path: Path) -> Files:
    """Reads all files of a directory and checks everything but audio files and archives."""
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; expected a data directory (wav.scp, utt2spk, ...)")
    files = Files(path)
    for name in files.mandatory:
        if name not in files:
            remedy = FIXER if name in COMPUTED_FILES else "prepare the data again"
            files.errors.append(f"{path / name}: no such file; {remedy}")
    # keys of malformed lines may be wrong, so other files need not have them
    unsure = [n for n, t in files.items() if t.unreadable or (t.malformed and n not in COMPUTED_FILES)]
    if "utt2spk" in files and not unsure:
        _check_prefixes(files)
        for name in files:
            _check_keys(files, name)
        _check_spk2utt(files)
        _check_same_files(files)
        _check_ends(files)
    if files.of_vectors:
        try:
            read_channels(path)
        except UserError as error:
            files.errors.append(str(error))
    return files


def _check_prefixes(files: Files) -> None:
    for line in files.by_key("utt2spk").values():
        if not line.key.startswith(line.rest):
            reason = f"speaker '{line.rest}' is not a prefix of utterance '{line.key}'; sorting by utterance and by "
            files.error("utt2spk", line, f"{reason}speaker would differ; rename the utterance")


def _check_keys(files: Files, name: str) -> None:
    """Keys of a file that are unknown, or missing although it must have them."""
    kind, source, known = TABLES[name].key, "utt2spk", files.by_key("utt2spk")
    if kind == "speaker":
        known = {line.rest: line for line in reversed(files["utt2spk"].lines)}
    elif name == "wav.scp" and "segments" in files:
        kind, source, known = "recording", "segments", files.recordings()
    present = files.by_key(name)
    for key, line in present.items():
        if key not in known:
            files.error(name, line, f"{kind} '{key}' is not in {source}; {FIXER}")
    if name in (*files.mandatory, "segments"):
        for key, line in known.items():
            if key not in present:
                files.error(source, line, f"{kind} '{key}' is not in {name}; {FIXER}")


def _check_spk2utt(files: Files) -> None:
    if "spk2utt" not in files:
        return
    utterances, listed = files.by_key("utt2spk"), {}
    for line in files["spk2utt"].lines:
        for utterance in line.columns if line.rest else ():
            if utterance in listed:
                reason = f"'{utterance}' is listed twice, also in line {listed[utterance].number}; {FIXER}"
                files.error("spk2utt", line, reason)
            listed.setdefault(utterance, line)
            speaker = utterances[utterance].rest if utterance in utterances else None
            if speaker != line.key:
                found = f"utt2spk says '{speaker}'" if speaker else "utt2spk lacks it"
                files.error("spk2utt", line, f"'{utterance}' under '{line.key}', but {found}; {FIXER}")
    for key, line in utterances.items():
        if key not in listed:
            reason = f"utterance '{key}' of utt2spk line {line.number} is not listed; {FIXER}"
            files.errors.append(f"{files.path / 'spk2utt'}: {reason}")


def _check_same_files(files: Files) -> None:
    first: dict[str, Line] = {}
    for line in files.by_key("wav.scp").values():
        other = first.setdefault(line.rest if is_pipe(line.rest) else os.path.normpath(line.rest), line)
        if other is not line:
            reason = f"the same file as '{other.key}' in line {other.number} ({line.rest}); remove one of the two"
            files.error("wav.scp", line, reason)


def _check_ends(files: Files) -> None:
    """Phones and words past the end of the audio."""
    counts = files.by_key("utt2num_samples").items()
    lengths = {key: int(line.rest) for key, line in counts if SAMPLE_NUMBER.fullmatch(line.rest)}
    for name in ("phones", "words"):
        for line in files[name].lines if name in files else ():
            end = int(line.columns[1])
            if end > lengths.get(line.key, end):
                reason = f"ends at {end}, past the audio's {lengths[line.key]} samples; prepare the data again"
                files.error(name, line, f"{line.key}: {reason}")


def check_pipes(files: Files) -> None:
    """Records an error for each command in wav.scp."""
    for line in files["wav.scp"].lines if "wav.scp" in files else ():
        if is_pipe(line.rest):
            files.error("wav.scp", line, f"{line.key}: '{line.rest}' is a command; {ALLOW}")


def recording_infos(files: Files, allow_pipes: bool, log: Log | None = None) -> dict[str, AudioInfo]:
    """The headers of all recordings by key; records an error for each one that cannot be dumped."""
    from speechlvm.data.audio import BLOCK_FRAMES, audio_blocks, audio_info, check_format, log_oddities

    infos: dict[str, AudioInfo] = {}
    rate_hz = None
    for line in files.by_key("wav.scp").values():
        if line in files["wav.scp"].malformed or (is_pipe(line.rest) and not allow_pipes):
            continue  # has its own error already
        try:
            with local_file(entry(line.rest)) as path:
                info = audio_info(path)
                rate_hz = rate_hz or info.rate_hz
                check_format(info, rate_hz, allow_streamed=is_pipe(line.rest))
                if log is not None:
                    log_oddities(info, log, line.key)
                if not info.num_samples:  # FLAC, output by a command: only decoding tells
                    blocks = audio_blocks(path, rate_hz, BLOCK_FRAMES, allow_streamed=True)
                    info = replace(info, num_samples=sum(map(len, blocks)))
            infos[line.key] = info
        except UserError as error:
            here = "" if is_pipe(line.rest) or os.path.isabs(line.rest) else f" (relative paths start at {Path.cwd()})"
            files.error("wav.scp", line, f"{line.key}: {error}{here}")
    return infos


def seconds_late(excerpt: Excerpt, info: AudioInfo) -> Decimal:
    """Seconds by which a part of a recording exceeds its end; 0 if it does not, or if it starts after the end."""
    if excerpt.end_seconds is None or excerpt.bounds(info.rate_hz, info.num_samples)[0] >= info.num_samples:
        return Decimal(0)
    return max(Decimal(0), excerpt.end_seconds - Decimal(info.num_samples) / info.rate_hz)


def audio_lengths(files: Files, infos: dict[str, AudioInfo]) -> dict[str, int]:
    """Number of samples of each utterance of recordings with these headers; an utterance of none is an error."""
    if "segments" not in files:
        return {key: info.num_samples for key, info in infos.items()}
    lengths: dict[str, int] = {}
    for key, line in files.excerpts().items():
        excerpt = Excerpt.parse(line.rest)
        if excerpt.recording not in infos:
            continue
        info = infos[excerpt.recording]
        start, stop = excerpt.bounds(info.rate_hz, info.num_samples)
        if stop > info.num_samples:
            by_little = 0 < seconds_late(excerpt, info) <= LATE_SECONDS
            remedy = FIXER if by_little else "correct the times (end -1: the recording's end)"
            reason = f"ends at sample {stop}, past the {info.num_samples} of '{excerpt.recording}'"
            files.error("segments", line, f"{key}: {reason} at {info.rate_hz} Hz; {remedy}")
        elif stop <= start:
            reason = f"samples {start} to {stop} of '{excerpt.recording}', which has {info.num_samples}"
            files.error("segments", line, f"{key}: {reason} at {info.rate_hz} Hz: none; correct the times")
        else:
            lengths[key] = stop - start
    return lengths


def check_vectors(files: Files) -> None:
    """Records sequences that are not where feats.scp says, or not as long as utt2num_frames says."""
    counts = files.by_key("utt2num_frames")
    for key, line in files.by_key("feats.scp").items():
        if line in files["feats.scp"].malformed:
            continue
        try:
            frames = count_frames(line.rest, key)
        except UserError as error:
            files.error("feats.scp", line, f"{key}: {error}")
            continue
        if key in counts and counts[key].rest != str(frames):
            reason = f"{counts[key].rest} frames, but the archive has {frames}; prepare the data again"
            files.error("utt2num_frames", counts[key], f"{key}: {reason}")


def overlaps(paths: Sequence[str | Path], speakers: bool) -> list[str]:
    """Errors for what data directories of one corpus share but must not: ``file:line: reason; what to do``.

    Args:
        paths: data directories of the training set, the validation set and the test sets.
        speakers: whether the test sets may share no speakers with the first two sets. (The validation set, which is
            drawn from the training set, may share speakers with it.)
    """
    sets = [examine(Path(path)) for path in paths]
    errors: list[str] = []
    utterances: dict[str, str] = {}
    known_speakers: dict[str, str] = {}
    for number, files in enumerate(sets):
        for line in files["utt2spk"].lines:
            here = f"{files.path / 'utt2spk'}:{line.number}"
            if line.key in utterances:
                errors.append(f"{here}: utterance '{line.key}' is also in {utterances[line.key]}; {ONE_SET}")
            utterances.setdefault(line.key, here)
            if number < 2:
                known_speakers.setdefault(line.rest, here)
            elif speakers and line.rest in known_speakers:
                errors.append(
                    f"{here}: {line.key}: speaker '{line.rest}' is also in {known_speakers[line.rest]}; "
                    "test speakers must be unseen; split the corpus again"
                )
    return errors or _shared_audio(sets)


def _shared_audio(sets: Iterable[Files]) -> list[str]:
    errors: list[str] = []
    last: dict[tuple, tuple] = {}  # for each source, the part that ends last so far
    parts = [(*part, number) for number, files in enumerate(sets) for part in _parts(files)]
    for part in sorted(parts):
        source, start, end, key, here, number = part
        _, _, reached, other_key, other, other_number = last.get(source, part)
        if start < reached and other_number != number:
            errors.append(f"{here}: {key}: the same audio as '{other_key}' in {other}; {ONE_SET}")
        if source not in last or end > reached:
            last[source] = part
    return errors


def _parts(files: Files) -> Iterator[tuple[tuple, Decimal, Decimal, str, str]]:
    """For each utterance: its source, start and end in it in seconds, its id, and the line that says so."""
    name = "feats.scp" if files.of_vectors else "wav.scp"
    lines = files.by_key(name)
    if "segments" not in files:
        for key, line in lines.items():
            yield _source(name, line), Decimal(0), Decimal("inf"), key, f"{files.path / name}:{line.number}"
    for key, line in files.excerpts().items():
        excerpt = Excerpt.parse(line.rest)
        end = Decimal("inf") if excerpt.end_seconds is None else excerpt.end_seconds
        here = f"{files.path / 'segments'}:{line.number}"
        yield _source(name, lines[excerpt.recording]), excerpt.start_seconds, end, key, here


def _source(name: str, line: Line) -> tuple:
    """A key that is equal for two entries of the same file, by any path or link, or the same position in an archive."""
    path, offset = (line.rest, "") if name == "wav.scp" else line.rest.rsplit(":", 1)
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, line.rest
    return status.st_dev, status.st_ino, offset
