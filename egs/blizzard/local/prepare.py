"""Makes the data directories train, valid and test from the audiobooks of the Blizzard Challenge 2013.

The books have one reader. They were released as MP3 files, one per chapter, in a directory ``unsegmented``; some also
as lossless recordings or cut into sentences, in zip files. Files are found at any depth, in any supported container;
archives, also nested ones, are unpacked under <out>/unpacked. If there is a directory ``unsegmented``, only its files
are used, since all others duplicate them. Everything is converted once to 16 kHz, 16 bits and one channel under
<out>/audio.

Sets are drawn by chapter, so that no chapter is in two of them; a speaker is a book. Errors in recordings stop the
preparation after all have been read, and no set is written.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from speechlvm.bin.cli import make_parser, positive, run_main
from speechlvm.data.corpora.convert import Converted, convert_audio
from speechlvm.data.corpora.preparation import add_max_bad, corpus_files, prepare_sets, read_all, shuffled, stamp
from speechlvm.data.corpora.unpack import unpack
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log, warn
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import atomic_directory, files_below, is_done, mark_done, remove_leftovers, version_of

SETS = ("train", "valid", "test")
RATE_HZ = 16000
# Source B's code: 112 640 and 114 304 of 2 267 008 half-second segments.
VALID_SHARE, TEST_SHARE, RELEASED_HOURS = 0.05, 0.05, 315
SEED = 0
# If a recording exists in several containers, the first of these is used; the last four are not supported.
ENDINGS = (".wav", ".flac", ".aiff", ".aif", ".sph", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".wma")
ARCHIVES = re.compile(r"\.(tar\.bz2|tar\.gz|tgz|zip)$", re.IGNORECASE)
UNSEGMENTED, UNPACKED = "unsegmented", ".unpacked"
SENTENCE = re.compile(r"(CB-[A-Z]+-[0-9]+)-[0-9]+", re.IGNORECASE)  # book and chapter in names of sentences


@dataclass
class Recording:
    """One audio file; `name` is its path without ending, as parts in the letters of ids."""

    path: Path
    name: tuple[str, ...]
    converted: Converted | None = None

    @property
    def book(self) -> str:
        """Id of the book, which stands for its reader."""
        return ".".join(self.name[:-1])

    @property
    def utterance(self) -> str:
        """Utterance id."""
        return f"{self.book}-{self.name[-1]}"

    @property
    def chapter(self) -> str:
        """The unit of the split: the recording, or for a sentence its whole chapter, whichever archive it came from."""
        sentence = SENTENCE.fullmatch(self.name[-1])
        return sentence.group(1).upper() if sentence else self.utterance


def has_unsegmented(paths: Iterable[Path], root: Path) -> bool:
    """Whether any of the paths leads through a directory of that name below `root`."""
    return any(UNSEGMENTED in (part.lower() for part in path.relative_to(root).parts[:-1]) for path in paths)


def unpack_archives(files: list[Path], root: Path, out: Path, log: Log) -> list[Path]:
    """Unpacks archives, and those in them, under `out`; returns what came out.

    Nothing is unpacked if the books are there already, and no archive beside a directory of its name.
    """
    archives = archives_among(files)
    # The archive of all books is a tar; the zip files repeat parts of it.
    archives.sort(key=lambda path: (path.suffix.lower() == ".zip", path))
    done = has_unsegmented(files, root)
    for archive in archives:
        plain = ARCHIVES.sub("", archive.name)
        target = out / archive.relative_to(root).parent / (plain + UNPACKED)
        if done:
            log.tolerate(f"archives were not unpacked, because there is a directory '{UNSEGMENTED}'", str(archive))
        elif archive.with_name(plain).is_dir():
            log.tolerate("archives were not unpacked, because there is a directory with their name", str(archive))
        else:
            try:
                unpack_once(archive, target)
            except UserError as error:
                log.error(str(error))
                continue
            done = has_unsegmented(list(files_below(target)), target)
    return sorted(files_below(out)) if out.is_dir() else []


def unpack_once(archive: Path, target: Path) -> None:
    """Unpacks an archive and those in it, completely or not at all, unless that has been done.

    Raises:
        UserError: damaged, hostile, or no space.
    """
    inputs = {"archive": [str(archive), *version_of(archive)]}
    if is_done(target, inputs):
        return
    shutil.rmtree(target, ignore_errors=True)
    with atomic_directory(target) as unpacked:
        unpack(archive, unpacked, shutil.disk_usage(unpacked).free)
        for inner in archives_among(sorted(files_below(unpacked))):
            unpack_once(inner, inner.with_name(ARCHIVES.sub("", inner.name) + UNPACKED))
            inner.unlink()
        mark_done(unpacked, inputs)


def archives_among(files: Iterable[Path]) -> list[Path]:
    """Those files that are archives by their names."""
    return [path for path in files if ARCHIVES.search(path.name) and not is_of_the_system(path)]


def is_of_the_system(path: Path) -> bool:
    """Whether a file was left by an operating system, as ``._name`` beside ``name``."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def find_recordings(files: Iterable[tuple[Path, Path]], log: Log) -> list[Recording]:
    """The recordings among some files, each given with its path below the corpus or what was unpacked of it."""
    found: dict[str, list[Recording]] = {}
    for path, below in files:
        parts = [re.sub(r"[^A-Za-z0-9_.]+", "_", part.removesuffix(UNPACKED)) for part in below.parts]
        parts[-1] = re.sub(r"[^A-Za-z0-9_-]+", "_", below.stem)
        if is_of_the_system(path):
            log.tolerate("files of the operating system were left out", str(path))
        elif path.suffix.lower() in ENDINGS:
            recording = Recording(path, tuple(parts))
            found.setdefault(recording.utterance, []).append(recording)
        elif not ARCHIVES.search(path.name) and path.name != "done.json":
            log.tolerate("files are not audio and were left out", str(path))
    for group in found.values():
        group.sort(key=lambda recording: ENDINGS.index(recording.path.suffix.lower()))
        for other in group[1:]:
            if other.path.suffix.lower() == group[0].path.suffix.lower():
                log.error(f"{other.path}: same id as {group[0].path}; rename one of the two")
            else:
                log.tolerate("recordings that also exist in a better container were left out", str(other.path))
    return [group[0] for _, group in sorted(found.items())]


def without_copies(recordings: list[Recording], log: Log) -> list[Recording]:
    """One of all recordings with the same samples, so that none is in two sets."""
    first: dict[str, Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.converted.digest, recording)
        if other is not recording:
            log.tolerate("recordings have the samples of another and were left out", f"{recording.path} ({other.path})")
    return list(first.values())


def divide(frames: Counter[str]) -> dict[str, str]:
    """The set of each chapter, given the lengths of all: test, then valid, are filled in an order drawn once for all.

    Returns:
        set by chapter; none is empty if there are three chapters.
    """
    order, sets = shuffled(frames, SEED), {}
    for name, share, others in (("test", TEST_SHARE, 2), ("valid", VALID_SHARE, 1)):
        filled = 0
        while filled < share * frames.total() and len(order) > others:
            chapter = order.pop(0)
            filled += frames[chapter]
            sets[chapter] = name
    return sets | dict.fromkeys(order, "train")


def describe_books(recordings: list[Recording], log: Log) -> None:
    """Prints the hours of each book; warns of chapters that are missing from its numbering."""
    hours: Counter[str] = Counter()
    numbers: dict[str, list[int]] = {}
    for recording in recordings:
        hours[recording.book] += recording.converted.frames / RATE_HZ / 3600
    for book, chapter in sorted({(recording.book, recording.chapter) for recording in recordings}):
        numbers.setdefault(book, []).extend(map(int, re.findall(r"[0-9]+", chapter.removeprefix(book))[-1:]))
    for book, length in sorted(hours.items()):
        print(f"{book}: {sum(r.book == book for r in recordings)} recordings, {length:.3f} hours")
        there = set(numbers[book])
        # Otherwise the last number in names is not the chapter's.
        if len(there) == len(numbers[book]) > 1 and max(there) - min(there) < 2 * len(there):
            for number in sorted(set(range(min(there), max(there))) - there):
                log.tolerate("chapters are missing from a sequence", f"{book} {number}")
    if hours.total() < 0.95 * RELEASED_HOURS:
        warn(f"{hours.total():.1f} hours in all; the published experiments used {RELEASED_HOURS} of the release")


def make_sets(root: Path, files: list[Path], out: Path, jobs: int, log: Log) -> dict[str, DataDirectory]:
    """The sets, converted, checked and divided.

    Raises:
        UserError: there are errors.
    """
    unpacked = out / "unpacked"
    places = [(path, path.relative_to(root)) for path in files]
    places += [(path, path.relative_to(unpacked)) for path in unpack_archives(files, root, unpacked, log)]
    if log.failed:
        log.report()
    inner = [(path, cut_to_unsegmented(below)) for path, below in places]
    if any(below for _, below in inner):
        for path, below in inner:
            if below is None and path.suffix.lower() in ENDINGS:
                log.tolerate(f"recordings are outside '{UNSEGMENTED}' and were left out", str(path))
        places = [(path, below) for path, below in inner if below]
    else:
        places = [(path, Path(root.name) / below if below.parent == Path() else below) for path, below in places]
    recordings = find_recordings(places, log)
    if not recordings:
        log.error(
            f"{root}: no audiobooks; looked for files {' '.join(ENDINGS[:8])} and archives .tar.bz2 .tar.gz .zip at "
            "any depth; give the directory that Lessac_Blizzard2013_CatherineByers_train was unpacked into"
        )

    remove_leftovers(out / "audio")

    def convert(recording: Recording) -> Log:
        result = Log()
        target = out / "audio" / recording.book / f"{recording.utterance}.wav"
        try:
            recording.converted = convert_audio(recording.path, target, RATE_HZ, "mix", result, clip=True)
            result.converted[recording.path.suffix.lower()[1:]] += 1
        except UserError as error:
            result.reject(recording.path, error)
        return result

    recordings = read_all(convert, recordings, jobs, log)
    if log.failed:
        log.report()
    recordings = without_copies(recordings, log)
    describe_books(recordings, log)
    frames: Counter[str] = Counter()
    for recording in recordings:
        frames[recording.chapter] += recording.converted.frames
    set_of = divide(frames)
    sets = {name: DataDirectory({}) for name in SETS}
    for recording in recordings:
        data = sets[set_of[recording.chapter]]
        data.utt2spk[recording.utterance] = recording.book
        data.wav[recording.utterance] = (out / "audio" / recording.book / f"{recording.utterance}.wav").resolve()
        data.num_samples[recording.utterance] = recording.converted.frames
    return sets


def cut_to_unsegmented(below: Path) -> Path | None:
    """The part of a path below the directory ``unsegmented``, with a book's directory; None if there is none."""
    for place, part in enumerate(below.parts[:-2]):
        if part.lower() == UNSEGMENTED:
            return Path(*below.parts[place + 1 :])
    return None


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="directory of the corpus")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/ and test/")
    parser.add_argument("--jobs", type=positive(int), default=1, help="recordings that are converted side by side")
    add_max_bad(parser)
    arguments = parser.parse_args(argv)
    root = arguments.corpus
    if not root.is_dir():
        raise UserError(f"{root}: no such directory; give the directory of the corpus, with its archives or unpacked")
    log = Log(arguments.max_bad)
    files = sorted(path for path in corpus_files(log, root) if arguments.out.resolve() not in path.parents)
    inputs = {"corpus": stamp(files), "max_bad": arguments.max_bad}

    def make() -> dict[str, DataDirectory]:
        return make_sets(root, files, arguments.out, arguments.jobs, log)

    prepare_sets(arguments.out, inputs, SETS, make, RATE_HZ, log)
    return 0


if __name__ == "__main__":
    run_main(main)
