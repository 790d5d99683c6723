"""Validation of data directories: each file alone, files against each other, and against the audio or archives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from speechlvm.data.kaldi.matrices import count_frames, read_channels
from speechlvm.data.kaldi.scp import ALLOW, Excerpt, entry, local_file
from speechlvm.data.kaldi.tables import FIXER, SAMPLE_NUMBER, TABLES, Contents, Line, is_pipe, read_table, unsafe_id
from speechlvm.utils.errors import UserError

if TYPE_CHECKING:
    from speechlvm.data.headers import AudioInfo
    from speechlvm.data.log import Log

AUDIO_FILES = ("wav.scp", "utt2num_samples")
VECTOR_FILES = ("feats.scp", "utt2num_frames")
COMPUTED_FILES = ("spk2utt", "utt2num_samples")
ONE_SET = "leave it in one of the sets"
LATE_SECONDS = Decimal("0.5")  # that times may be past a recording, as they are rounded; Kaldi cuts such ends too


def validate(
    path: str | Path, check_audio: bool = True, allow_pipes: bool = False, log: Log | None = None
) -> list[str]:
    """Lists everything that is wrong with a data directory, one line each: ``file:line: reason; what to do``.

    Args:
        path: the directory.
        check_audio: also read the header of each audio file and compare its length with utt2num_samples; of each
            sequence of vectors, with utt2num_frames.
        allow_pipes: take commands in wav.scp, and run them to check the audio.
        log: counts audio that is read although it is odd.
    """
    contents, errors = examine(Path(path))
    if not allow_pipes:
        errors += pipe_errors(contents)
    if check_audio and "wav.scp" in contents:
        infos, unreadable = recording_infos(contents, allow_pipes, log)
        lengths, impossible = audio_lengths(contents, infos)
        errors += unreadable + impossible + _wrong_counts(contents, lengths)
    if check_audio and of_vectors(contents):
        errors += vector_errors(contents)
    return errors


def overlaps(paths: Sequence[str | Path], speakers: bool) -> list[str]:
    """What valid data directories of one corpus share and must not, one line each: ``file:line: reason; what to do``.

    Args:
        paths: of the training set, the validation set and the test sets.
        speakers: test sets must have other speakers than the first two. (The validation set, which is drawn from the
            training set, may share speakers with it.)
    """
    errors: list[str] = []
    utterances: dict[str, str] = {}
    known_speakers: dict[str, str] = {}
    stretches: list[tuple] = []
    for number, path in enumerate(map(Path, paths)):
        contents, _ = examine(path)
        utt2spk = contents["utt2spk"]
        for line in utt2spk.lines:
            here = f"{utt2spk.path}:{line.number}"
            if line.key in utterances:
                errors.append(f"{here}: utterance '{line.key}' is also in {utterances[line.key]}; {ONE_SET}")
            utterances.setdefault(line.key, here)
            if speakers and number > 1 and line.rest in known_speakers:
                errors.append(
                    f"{here}: {line.key}: speaker '{line.rest}' is also in {known_speakers[line.rest]}; "
                    "test speakers must be unseen; split the corpus again"
                )
            elif number < 2:
                known_speakers.setdefault(line.rest, here)
        stretches += [(*stretch, number) for stretch in _stretches(contents)]
    if errors:
        return errors
    last: dict[tuple, tuple] = {}  # of each source, the stretch that reaches furthest so far
    for stretch in sorted(stretches):
        source, start, end, key, here, number = stretch
        _, _, reached, other_key, other, other_number = last.get(source, stretch)
        if start < reached and other_number != number:
            errors.append(f"{here}: {key}: the same audio as '{other_key}' in {other}; {ONE_SET}")
        if source not in last or end > reached:
            last[source] = stretch
    return errors


def _stretches(contents: dict[str, Contents]) -> Iterator[tuple[tuple, Decimal, Decimal, str, str]]:
    """Of each utterance: its source, start and end there in seconds, its id, and where the directory says so."""
    table = contents["feats.scp" if of_vectors(contents) else "wav.scp"]
    lines = table.by_key()
    if "segments" in contents:
        for key, line in excerpts(contents).items():
            excerpt = Excerpt.parse(line.rest)
            source = _source(table, lines[excerpt.recording])
            end = Decimal("inf") if excerpt.end_seconds is None else excerpt.end_seconds
            yield source, excerpt.start_seconds, end, key, f"{contents['segments'].path}:{line.number}"
    else:
        for key, line in lines.items():
            yield _source(table, line), Decimal(0), Decimal("inf"), key, f"{table.path}:{line.number}"


def _source(table: Contents, line: Line) -> tuple:
    """Equal where two entries are the same file, by whatever path or link, or the same place in an archive."""
    path, offset = (line.rest, "") if table.path.name == "wav.scp" else line.rest.rsplit(":", 1)
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, line.rest
    return status.st_dev, status.st_ino, offset


def of_vectors(names) -> bool:
    """Whether the data are vectors; features beside audio are of other toolkits, and nothing here reads them."""
    return "feats.scp" in names and "wav.scp" not in names


def mandatory(names) -> tuple[str, ...]:
    """Audio directories and directories of vector sequences differ in two files."""
    return ("utt2spk", "spk2utt", *(VECTOR_FILES if of_vectors(names) else AUDIO_FILES))


def examine(path: Path) -> tuple[dict[str, Contents], list[str]]:
    """Reads all files; returns them with everything that is wrong short of opening audio files."""
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; expected a data directory (wav.scp, utt2spk, ...)")
    contents = {name: read_table(path / name) for name in TABLES if (path / name).is_file()}
    errors = [error for table in contents.values() for error in table.errors]
    for name in mandatory(contents):
        if name not in contents:
            remedy = FIXER if name in COMPUTED_FILES else "prepare the data again"
            errors.append(f"{path / name}: no such file; {remedy}")
    # of a malformed line it says nothing that other files lack it
    unsure = [n for n, t in contents.items() if t.unreadable or (t.malformed and n not in COMPUTED_FILES)]
    if "utt2spk" in contents and not unsure:
        errors += _consistency(contents)
    if of_vectors(contents):
        try:
            read_channels(path)
        except UserError as error:
            errors.append(str(error))
    return contents, errors


def pipe_errors(contents: dict[str, Contents]) -> list[str]:
    """An error for each command in wav.scp."""
    return [
        f"{contents['wav.scp'].path}:{line.number}: {line.key}: '{line.rest}' is a command; {ALLOW}"
        for line in (contents["wav.scp"].lines if "wav.scp" in contents else [])
        if is_pipe(line.rest)
    ]


def excerpts(contents: dict[str, Contents]) -> dict[str, Line]:
    """The well-formed lines of segments, by utterance."""
    if "segments" not in contents:
        return {}
    table = contents["segments"]
    return {key: line for key, line in table.by_key().items() if line not in table.misshapen}


def recordings(contents: dict[str, Contents]) -> dict[str, Line]:
    """What the keys of wav.scp must be, each with a line that names it."""
    if "segments" not in contents:
        return contents["utt2spk"].by_key()
    return {line.columns[0]: line for line in reversed(excerpts(contents).values())}


def _consistency(contents: dict[str, Contents]) -> list[str]:
    """Keys and values that must agree across files."""
    errors: list[str] = []
    utt2spk = contents["utt2spk"]
    utterances = utt2spk.by_key()
    speakers = {line.rest: line for line in reversed(utt2spk.lines)}
    for line in utterances.values():
        if line.rest and not line.key.startswith(line.rest) and not unsafe_id(line.rest):
            errors.append(
                f"{utt2spk.path}:{line.number}: speaker '{line.rest}' is no prefix of utterance '{line.key}', "
                "so that files sorted by either would differ; rename the utterance"
            )
    for name, table in contents.items():
        kind, source, known = TABLES[name].key, utt2spk, utterances if TABLES[name].key == "utterance" else speakers
        if name == "wav.scp" and "segments" in contents:
            kind, source, known = "recording", contents["segments"], recordings(contents)
        for key, line in table.by_key().items():
            if key not in known:
                errors.append(f"{table.path}:{line.number}: {kind} '{key}' is not in {source.path.name}; {FIXER}")
        if name in (*mandatory(contents), "segments"):
            present = table.by_key()
            errors += [
                f"{source.path}:{line.number}: {kind} '{key}' is not in {name}; {FIXER}"
                for key, line in known.items()
                if key and key not in present
            ]
    if "spk2utt" in contents:
        errors += _spk2utt_errors(contents["spk2utt"], utterances)
    if "wav.scp" in contents:
        errors += _same_file_errors(contents["wav.scp"])
    if "utt2num_samples" in contents:
        errors += _segments_past_the_end(contents)
    return errors


def _spk2utt_errors(spk2utt: Contents, utterances: dict[str, Line]) -> list[str]:
    errors, listed = [], {}
    for line in spk2utt.lines:
        for utterance in line.columns if line.rest else ():
            if utterance in listed:
                where, first = f"{spk2utt.path}:{line.number}", listed[utterance].number
                errors.append(f"{where}: '{utterance}' is listed twice, also in line {first}; {FIXER}")
            listed.setdefault(utterance, line)
            speaker = utterances[utterance].rest if utterance in utterances else None
            if speaker != line.key:
                found = f"utt2spk says '{speaker}'" if speaker else "utt2spk lacks it"
                errors.append(f"{spk2utt.path}:{line.number}: '{utterance}' under '{line.key}', but {found}; {FIXER}")
    return errors + [
        f"{spk2utt.path}: utterance '{key}' of utt2spk line {line.number} is not listed; {FIXER}"
        for key, line in utterances.items()
        if key not in listed
    ]


def _same_file_errors(wav: Contents) -> list[str]:
    errors, first = [], {}
    for line in wav.by_key().values():
        other = first.setdefault(line.rest if is_pipe(line.rest) else os.path.normpath(line.rest), line)
        if other is not line:
            errors.append(
                f"{wav.path}:{line.number}: the same file as '{other.key}' in line {other.number} ({line.rest}); "
                "remove one of the two"
            )
    return errors


def _segments_past_the_end(contents: dict[str, Contents]) -> list[str]:
    counts = contents["utt2num_samples"].by_key().items()
    lengths = {key: int(line.rest) for key, line in counts if SAMPLE_NUMBER.fullmatch(line.rest)}
    errors = []
    for name in ("phones", "words"):
        for line in contents[name].lines if name in contents else []:
            end = "".join(line.columns[1:2])
            if SAMPLE_NUMBER.fullmatch(end) and int(end) > lengths.get(line.key, int(end)):
                errors.append(
                    f"{contents[name].path}:{line.number}: {line.key}: ends at {end}, "
                    f"past the audio's {lengths[line.key]} samples; prepare the data again"
                )
    return errors


def recording_infos(
    contents: dict[str, Contents], allow_pipes: bool, log: Log | None = None
) -> tuple[dict[str, AudioInfo], list[str]]:
    """The headers of all files, by their keys, and an error for each file that dumps would refuse."""
    from speechlvm.data.audio import BLOCK_FRAMES, audio_blocks, audio_info, check_format, tell_oddities

    infos, errors, rate_hz = {}, [], None
    wav = contents["wav.scp"]
    for line in wav.by_key().values():
        if line in wav.misshapen or (is_pipe(line.rest) and not allow_pipes):
            continue  # has its own error already
        try:
            with local_file(entry(line.rest)) as path:
                info = audio_info(path)
                rate_hz = rate_hz or info.rate_hz
                check_format(info, rate_hz, allow_streamed=is_pipe(line.rest))
                if log is not None:
                    tell_oddities(info, log, line.key)
                if not info.num_samples:  # FLAC, out of a command: only decoding tells
                    blocks = audio_blocks(path, rate_hz, BLOCK_FRAMES, allow_streamed=True)
                    info = replace(info, num_samples=sum(map(len, blocks)))
            infos[line.key] = info
        except UserError as error:
            here = "" if is_pipe(line.rest) or os.path.isabs(line.rest) else f" (relative paths start at {Path.cwd()})"
            errors.append(f"{wav.path}:{line.number}: {line.key}: {error}{here}")
    return infos, errors


def seconds_late(excerpt: Excerpt, info: AudioInfo) -> Decimal:
    """By how much a part of a recording that begins in it ends after it; 0 if it does not."""
    if excerpt.end_seconds is None or excerpt.bounds(info.rate_hz, info.num_samples)[0] >= info.num_samples:
        return Decimal(0)
    return max(Decimal(0), excerpt.end_seconds - Decimal(info.num_samples) / info.rate_hz)


def audio_lengths(contents: dict[str, Contents], infos: dict[str, AudioInfo]) -> tuple[dict[str, int], list[str]]:
    """Samples of all utterances of files with these headers, and an error for each that has none."""
    if "segments" not in contents:
        return {key: info.num_samples for key, info in infos.items()}, []
    lengths, errors = {}, []
    for key, line in excerpts(contents).items():
        excerpt = Excerpt.parse(line.rest)
        if excerpt.recording in infos:
            info = infos[excerpt.recording]
            start, stop = excerpt.bounds(info.rate_hz, info.num_samples)
            where = f"{contents['segments'].path}:{line.number}: {key}"
            if stop > info.num_samples:
                by_little = 0 < seconds_late(excerpt, info) <= LATE_SECONDS
                remedy = FIXER if by_little else "correct the times (end -1: the recording's end)"
                errors.append(
                    f"{where}: ends at sample {stop}, past the {info.num_samples} of '{excerpt.recording}' at "
                    f"{info.rate_hz} Hz; {remedy}"
                )
            elif stop <= start:
                errors.append(
                    f"{where}: samples {start} to {stop} of '{excerpt.recording}', which has {info.num_samples} at "
                    f"{info.rate_hz} Hz: none; correct the times"
                )
            else:
                lengths[key] = stop - start
    return lengths, errors


def _wrong_counts(contents: dict[str, Contents], lengths: dict[str, int]) -> list[str]:
    counts = contents["utt2num_samples"].by_key() if "utt2num_samples" in contents else {}
    return [
        f"{contents['utt2num_samples'].path}:{line.number}: {key}: {line.rest} samples, "
        f"but the audio has {lengths[key]}; {FIXER}"
        for key, line in counts.items()
        if key in lengths and line.rest != str(lengths[key])
    ]


def vector_errors(contents: dict[str, Contents]) -> list[str]:
    """Sequences that are not where feats.scp says, or not as long as utt2num_frames says."""
    counts = contents["utt2num_frames"].by_key() if "utt2num_frames" in contents else {}
    errors = []
    for key, line in contents["feats.scp"].by_key().items():
        if line in contents["feats.scp"].misshapen:
            continue
        try:
            frames = count_frames(line.rest, key)
        except UserError as error:
            errors.append(f"{contents['feats.scp'].path}:{line.number}: {key}: {error}")
            continue
        if key in counts and counts[key].rest != str(frames):
            errors.append(
                f"{contents['utt2num_frames'].path}:{counts[key].number}: {key}: {counts[key].rest} frames, "
                f"but the archive has {frames}; prepare the data again"
            )
    return errors
