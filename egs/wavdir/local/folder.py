"""The audio files of a folder: finding them, reading their headers, converting what has to be, reading all once."""

import hashlib
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from speechlvm.data.audio import audio_blocks, audio_info, misaligned_frames, open_regular
from speechlvm.data.convert import convert_audio
from speechlvm.data.preparation import NAMED, Log, read_all
from speechlvm.errors import UserError

# fmt: off
READ = (".wav", ".wave", ".flac", ".sph", ".nist", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au",
        ".snd", ".caf", ".w64", ".rf64")
NOT_READ = (".m4a", ".mp4", ".aac", ".wma", ".amr", ".ape", ".wv", ".webm", ".mka", ".3gp", ".ac3", ".dts", ".ra")
# fmt: on
READ_BY_US = (b"NIST_1A", b"RIFF", b"fLaC")
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
BLOCK_FRAMES = 1_000_000
JOBS = min(8, len(os.sched_getaffinity(0)))


@dataclass
class File:
    """An audio file, what its header says, and then what its samples are.

    Attributes:
        path: where it lies.
        name: its path below the folder, on one line.
        rate_hz: sampling rate.
        format: what it is, if it has to be converted; empty if not.
        audio: the 16-bit mono file, itself or converted.
        num_samples: of `audio`.
        digest: SHA-256 of the samples.
    """

    path: Path
    name: str
    rate_hz: int = 0
    format: str = ""
    audio: Path | None = None
    num_samples: int = 0
    digest: str = ""


def shown(path: Path | str) -> str:
    """A path (or a message with one) as UTF-8 on one line, whatever the path is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def find_files(root: Path, apart: list[Path], log: Log) -> list[tuple[Path, os.stat_result]]:
    """The audio files below a folder by their endings, links followed, each folder once, in a fixed order.

    Args:
        root: the folder.
        apart: folders that are not searched, as what we write ourselves lies there.
        log: takes what is left out, and what cannot be read.

    Raises:
        UserError: no such folder, or no audio files in it.
    """
    if not root.is_dir():
        raise UserError(
            f"{shown(root)}: no such folder; give one of audio files (a relative path starts at the recipe)"
        )
    ours = {_identity(path.stat()) for path in apart if path.exists()}
    searched, found, folders = set(), [], [root]
    while folders:
        folder = folders.pop()
        try:
            identity = _identity(folder.stat())
            entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
        except OSError as error:
            log.fault(f"{shown(folder)}: cannot be searched ({error.strerror}); check its permissions, or move it away")
            continue
        if identity in ours:
            continue
        if identity in searched:
            log.tolerate("links lead to folders that are searched anyway", shown(folder.relative_to(root)))
            continue
        searched.add(identity)
        below = []
        for path in entries:
            ending = path.suffix.lower()
            if path.name.startswith("."):
                log.tolerate("hidden files and folders were left out", shown(path.relative_to(root)))
            elif path.is_dir():
                below.append(path)
            elif ending in NOT_READ:
                log.fault(
                    f"{shown(path)}: {ending} is not read here; convert it, for example with ffmpeg to .flac, "
                    "or move it away"
                )
            elif ending not in READ:
                log.tolerate("files are not audio by their endings and were left out", shown(path.relative_to(root)))
            else:
                _add_file(path, found, log)
        folders += reversed(below)
    if not found and not log.faults:
        raise UserError(f"{shown(root)}: no audio files in it or in any folder below; looked for {' '.join(READ)}")
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _add_file(path: Path, found: list[tuple[Path, os.stat_result]], log: Log) -> None:
    try:
        status = path.stat()
    except OSError as error:
        reason = "dangling symbolic link" if isinstance(error, FileNotFoundError) else error.strerror
        log.fault(f"{shown(path)}: {reason}; mend it, or move it away")
        return
    if stat.S_ISREG(status.st_mode):
        found.append((path, status))
    else:
        log.fault(f"{shown(path)}: not a regular file; move it away")


def read_header(file: File) -> None:
    """Fills in sampling rate and format.

    Raises:
        UserError: empty, no audio, damaged, or of a kind that is not read.
    """
    import soundfile

    with open_regular(file.path) as stream:
        start = stream.read(16)
        if not start or start.startswith(READ_BY_US):
            info = audio_info(file.path)
            file.rate_hz = info.rate_hz
            if (info.encoding, info.bits, info.channels) != ("pcm", 16, 1):
                encoding = "" if info.encoding == "pcm" else f" {info.encoding}"
                file.format = f"{info.container} {info.bits}-bit{encoding}, {counted(info.channels, 'channel')}"
            return
        stream.seek(0)
        try:
            with soundfile.SoundFile(stream) as decoder:
                file.rate_hz = decoder.samplerate
                file.format = f"{decoder.format.lower()}, {counted(decoder.channels, 'channel')}"
        except (soundfile.SoundFileError, RuntimeError) as error:
            reason = " ".join(str(error).split()).rpartition(": ")[2].rstrip(".")
            raise UserError(
                f"{file.path}: cannot be read as audio ({reason}); it starts with {start!r}; copy it again from its "
                "source, or move it away"
            ) from None


def short_hash(name: str) -> str:
    """12 hexadecimal digits that are a name's own."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def counted(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def choose_rate(files: list[File], rate_hz: int | None, log: Log) -> int:
    """The sampling rate of all: that given, else that of most files; files of another are a fault then."""
    counts = Counter(file.rate_hz for file in files)
    common, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    if rate_hz is None:
        for other in sorted(counts.keys() - {common}):
            names = [shown(file.path) for file in files if file.rate_hz == other]
            named = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
            log.fault(
                f"{counted(counts[other], 'file')} of {other} Hz, where {most} of {len(files)} have {common}: {named}; "
                f"resample all with --rate_hz {common} (or another), or move them away"
            )
    return rate_hz or common


def read_samples(file: File, rate_hz: int, channel: int | str, folder: Path) -> Log:
    """Converts a file where it has to be, reads it once, and fills in its length and digest."""
    log = Log()
    try:
        if file.format:
            target = folder / f"{short_hash(file.name)}.wav"
            made = convert_audio(file.path, target, rate_hz, channel, log)
            file.audio, file.num_samples, file.digest = target, made.frames, made.digest
        else:
            digest, noisy = hashlib.sha256(), 0
            for samples in audio_blocks(file.path, rate_hz, BLOCK_FRAMES):
                file.num_samples += len(samples)
                digest.update(samples.astype("<i2", copy=False).tobytes())
                noisy += misaligned_frames(samples)
            file.audio, file.digest = file.path, digest.hexdigest()
            if noisy:
                log.tolerate(
                    "files hold full-scale noise where bytes were lost (as by a transfer in text mode); likelihoods of "
                    "these stretches mean nothing, get an intact copy",
                    shown(file.path),
                )
    except UserError as error:
        log.fault(shown(str(error)))
    return log


def without_copies(files: list[File], log: Log) -> list[File]:
    """The files, and of those with the same samples only the one in the deepest folder, then the first."""
    first: dict[str, File] = {}
    for file in sorted(files, key=lambda file: -file.name.count("/")):
        if (other := first.setdefault(file.digest, file)) is not file:
            log.tolerate("files hold the same samples as another and were left out", f"{file.name} (as {other.name})")
    return list(first.values())


def read_headers(files: list[File], rate_hz: int | None, log: Log) -> int:
    """Reads all headers, settles which files have to be converted, and returns the sampling rate of all.

    Raises:
        UserError: there are faults.
    """

    def read(file: File) -> Log:
        own = Log()
        try:
            read_header(file)
        except UserError as error:
            own.fault(shown(str(error)))
        return own

    read_all(read, files, JOBS, log)
    readable = [file for file in files if file.rate_hz]
    rate_hz = choose_rate(readable, rate_hz, log) if readable else 0
    if log.faults:
        log.report()
    for file in files:
        if file.rate_hz != rate_hz:
            file.format = f"{file.format or '16-bit, 1 channel'}, {file.rate_hz} Hz"
        elif not file.format and shown(file.path.absolute()) != str(file.path.absolute()):
            file.format = "of names that wav.scp cannot hold"
    return rate_hz
