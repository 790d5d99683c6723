"""Audio files of a folder: finds them, reads their headers, converts them if necessary, and reads each once."""

import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from speechlvm.data.audio import MOST_FRAMES, UnknownLength, audio_blocks, audio_info, describe, log_oddities
from speechlvm.data.corpora.convert import check_container, convert_audio, decoding
from speechlvm.data.corpora.preparation import MISALIGNED, misaligned_frames, read_all
from speechlvm.data.headers import open_regular
from speechlvm.data.log import Log, examples, shown
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import files_below

# fmt: off
READ = (".wav", ".wave", ".flac", ".sph", ".nist", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au",
        ".snd", ".caf", ".w64", ".rf64")
NOT_READ = (".m4a", ".mp4", ".aac", ".wma", ".amr", ".ape", ".wv", ".webm", ".mka", ".3gp", ".ac3", ".dts", ".ra")
# fmt: on
EXACT = ("PCM_16", "ALAC_16")  # libsndfile's names of 16-bit integers
BLOCK_FRAMES = 1_000_000
JOBS = min(8, len(os.sched_getaffinity(0)))


@dataclass(frozen=True)
class Options:
    """What may be done to recordings; without it, those that need it are refused.

    Attributes:
        rate_hz: resample to this rate; None: all must have one, and keep it.
        channel: of several take this one, from 0, or the mean ("mix"); None: refuse several.
        bits: 16: round what is not 16-bit integers to that; None: refuse it.
        clip: clip what is beyond full scale.
        allow_streamed: believe that files are whole whose headers lack the number of samples.
    """

    rate_hz: int | None = None
    channel: int | Literal["mix"] | None = None
    bits: Literal[16] | None = None
    clip: bool = False
    allow_streamed: bool = False


@dataclass
class File:
    """An audio file, what its header says, and then what its samples are.

    Attributes:
        path: where it lies.
        name: its path below the folder, on one line.
        rate_hz: sampling rate.
        channels: number of channels.
        exact: whether its samples are 16-bit integers.
        format: what it is, if it has to be converted; empty if not.
        audio: the 16-bit mono file, itself or converted.
        num_samples: of `audio`.
        digest: SHA-256 of the samples.
    """

    path: Path
    name: str
    rate_hz: int = 0
    channels: int = 1
    exact: bool = True
    format: str = ""
    audio: Path | None = None
    num_samples: int = 0
    digest: str = ""


def find_files(root: Path, apart: list[Path], log: Log) -> list[Path]:
    """The audio files below a folder by their endings, links followed, each folder once, in a fixed order.

    Args:
        root: the folder.
        apart: folders that are not searched, as what we write ourselves lies there.
        log: takes what is left out.

    Raises:
        UserError: no such folder, one that cannot be searched, or no audio files in it.
    """
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder; give one of audio files (relative paths start at the recipe)")
    ours = {_identity(path.stat()) for path in apart if path.exists()}
    found: list[Path] = []

    def hidden(path: Path) -> bool:
        if path.name.startswith("."):
            log.tolerate("hidden files and folders were left out", shown(path.relative_to(root)))
        return path.name.startswith(".")

    def again(folder: Path) -> None:
        log.tolerate("links to folders that are searched anyway were skipped", shown(folder.relative_to(root)))

    for path in files_below(root, again, lambda folder: not hidden(folder) and _identity(folder.stat()) not in ours):
        ending = path.suffix.lower()
        if hidden(path):
            continue
        if ending in NOT_READ:
            remedy = "convert it, for example with ffmpeg to .flac, or move it away"
            log.reject(path, f"{path}: {ending} is not read here; {remedy}")
        elif ending not in READ:
            log.tolerate("files are not audio by their endings and were left out", shown(path.relative_to(root)))
        else:
            _add_file(path, found, log)
    if not found and not log.errors and not log.rejected:
        raise UserError(f"{shown(root)}: no audio files in it or in any folder below; looked for {' '.join(READ)}")
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _add_file(path: Path, found: list[Path], log: Log) -> None:
    try:
        status = path.stat()
    except OSError as error:
        reason = "dangling symbolic link" if isinstance(error, FileNotFoundError) else error.strerror
        log.reject(path, f"{path}: {reason}; fix it, or move it away")
        return
    if stat.S_ISREG(status.st_mode):
        found.append(path)
    else:
        log.reject(path, f"{path}: not a regular file; move it away")


def read_header(file: File, allow_streamed: bool) -> None:
    """Fills in what the header says.

    Raises:
        UserError: empty, no audio, damaged, of a kind that is not read, or (unless allowed) of unknown length.
    """
    with open_regular(file.path) as stream:
        try:
            info = check_container(file.path, stream, allow_streamed, Log())  # oddities are logged on reading
        except UnknownLength as error:
            raise UserError(f"{error}; or treat all such files as complete, by --allow_streamed true") from None
        if info is not None:
            file.rate_hz, file.channels = info.rate_hz, info.channels
            file.exact = (info.encoding, info.bits) == ("pcm", 16)
            if info.placeholder is not None:
                file.format = f"{info.container} of unknown length, {counted(info.channels, 'channel')}"
            elif info.num_samples > MOST_FRAMES:
                file.format = f"{info.container} of 4 GiB and more, {counted(info.channels, 'channel')}"
            if not file.exact or info.channels != 1:
                file.format = f"{info.container} {describe(info)}, {counted(info.channels, 'channel')}"
            return
        with decoding(file.path, None, stream) as decoder:
            file.rate_hz, file.channels = decoder.samplerate, decoder.channels
            file.exact = decoder.subtype in EXACT
            file.format = f"{decoder.format.lower()}, {counted(decoder.channels, 'channel')}"


def short_hash(name: str) -> str:
    """12 hexadecimal digits that are a name's own."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def counted(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def choose_rate(files: list[File], rate_hz: int | None, log: Log) -> int:
    """The sampling rate of all: that given, else that of most files; files of another are an error then."""
    counts = Counter(file.rate_hz for file in files)
    common, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    if rate_hz is None:
        for other in sorted(counts.keys() - {common}):
            _refuse(
                [file for file in files if file.rate_hz == other],
                f"of {other} Hz, where {most} of {len(files)} have {common}",
                f"resample all with --rate_hz {common} (or another)",
                log,
            )
    return rate_hz or common


def check_samples(files: list[File], options: Options, log: Log) -> None:
    """What would be converted to other samples, without an option that says how, is an error."""
    if options.bits is None:
        what = "whose samples are not 16-bit integers, so that their bits per frame cannot be compared"
        _refuse([file for file in files if not file.exact], what, "round them all with --bits 16", log)
    if options.channel is None:
        remedy = "take one with --channel 0 (or another), or the mean with --channel mix"
        _refuse([file for file in files if file.channels > 1], "with several channels", remedy, log)


def _refuse(files: list[File], what: str, remedy: str, log: Log) -> None:
    if files:
        named = examples([shown(file.path) for file in files])
        log.error(f"{counted(len(files), 'file')} {what}: {named}; {remedy}, or move them away")


def read_samples(file: File, rate_hz: int, options: Options, folder: Path) -> Log:
    """Converts a file where it has to be, reads it once, and fills in its length and digest."""
    log = Log()
    try:
        if file.format:
            target = folder / f"{short_hash(file.name)}.wav"
            made = convert_audio(
                file.path,
                target,
                rate_hz,
                0 if options.channel is None else options.channel,
                log,
                clip=options.clip,
                allow_streamed=options.allow_streamed,
            )
            log.converted[file.format] += 1
            file.audio, file.num_samples, file.digest = target, made.frames, made.digest
        else:
            digest, noisy = hashlib.sha256(), 0
            log_oddities(audio_info(file.path), log)
            for samples in audio_blocks(file.path, rate_hz, BLOCK_FRAMES):
                file.num_samples += len(samples)
                digest.update(samples.astype("<i2", copy=False).tobytes())
                noisy += misaligned_frames(samples)
            file.audio, file.digest = file.path, digest.hexdigest()
            if noisy:
                log.tolerate(MISALIGNED, shown(file.path))
    except UserError as error:
        log.reject(file.path, error)
    return log


def without_copies(files: list[File], log: Log) -> list[File]:
    """The files, and of those with the same samples only the one in the deepest folder, then the first."""
    first: dict[str, File] = {}
    for file in sorted(files, key=lambda file: -file.name.count("/")):
        if (other := first.setdefault(file.digest, file)) is not file:
            log.tolerate("files hold the same samples as another and were left out", f"{file.name} (as {other.name})")
    return list(first.values())


def read_headers(files: list[File], options: Options, log: Log) -> tuple[list[File], int]:
    """Reads all headers and settles which files have to be converted.

    Returns:
        The files that are not rejected, and the sampling rate of all.

    Raises:
        UserError: there are errors.
    """

    def read(file: File) -> Log:
        own = Log()
        try:
            read_header(file, options.allow_streamed)
        except UserError as error:
            own.reject(file.path, error)
        return own

    files = read_all(read, files, JOBS, log)
    rate_hz = choose_rate(files, options.rate_hz, log) if files else 0
    check_samples(files, options, log)
    if log.failed:
        log.report()
    for file in files:
        if file.rate_hz != rate_hz:
            file.format = f"{file.format or '16-bit, 1 channel'}, {file.rate_hz} Hz"
        elif not file.format and shown(file.path.absolute()) != str(file.path.absolute()):
            file.format = "of names that wav.scp cannot hold"
    return files, rate_hz
