"""Speech in LibriSpeech's layout: ``<set>/<speaker>/<chapter>/<speaker>-<chapter>-<number>.flac``.

Each chapter has its transcripts in ``<speaker>-<chapter>.trans.txt``, in lines ``utterance TEXT``; SPEAKERS.TXT gives
the sex of all speakers. This is the layout of LibriSpeech, Mini LibriSpeech and Libri-Light's fine-tuning subset.
Copies converted to WAV have the same samples and are read as well. Files are not decoded: only the header and the last
sample of each FLAC file are read, which finds truncated files.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from speechlvm.data.audio import audio_info, check_format
from speechlvm.data.corpora.preparation import (
    LOSSY,
    child,
    corpus_files,
    find_corpus,
    lossy,
    read_all,
    shuffled,
)
from speechlvm.data.headers import COPY_AGAIN
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log, warn
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.text import read_lines

RATE_HZ = 16000
NUMBER_OF_UTTERANCES = {
    "train-clean-100": 28539,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
    "train-clean-5": 1519,
    "dev-clean-2": 1089,
}
TEST_SETS = ("dev-clean", "dev-other", "test-clean", "test-other")
PLACEHOLDER = "TRANSCRIPT NOT AVAILABLE"
ID = re.compile(r"[0-9]+")
UTTERANCE = re.compile(r"([0-9]+)-([0-9]+)-[0-9]+")


@dataclass
class Utterance:
    """One FLAC file."""

    name: str
    speaker: str
    audio: Path
    text: str = ""
    num_samples: int = 0


@dataclass
class Chapter:
    """A directory of utterances, which `read_chapter` fills in from the files in it."""

    directory: Path
    speaker: str
    files: list[Path] = field(default_factory=list)
    utterances: dict[str, Utterance] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What the ids of its utterances start with."""
        return f"{self.speaker}-{self.directory.name}"

    @property
    def transcripts(self) -> Path:
        """Path of its transcripts."""
        return self.directory / f"{self.prefix}.trans.txt"


def find_root(corpus: Path, names: Iterable[str]) -> Path:
    """The directory that holds the sets of these names.

    Raises:
        UserError: saying what was looked for and where, or which sets are missing.
    """
    names = list(names)
    place = find_corpus(
        corpus,
        lambda place: any((place / name).is_dir() for name in names),
        [name.upper() for name in names],
        "corpus in LibriSpeech's layout",
        f"directories {', '.join(names)}",
    )
    if missing := [name for name in names if not (place / name).is_dir()]:
        archives = ", ".join(f"{name}.tar.gz" for name in missing)
        raise UserError(
            f"{place}: {', '.join(missing)} missing, {len(names) - len(missing)} of {len(names)} sets are there; "
            f"run stage 0, which fetches {archives}, or leave test sets out with --test_sets"
        )
    return place.resolve()


def directory_name(name: str) -> str:
    """Name of the data directory of one of the corpus's sets."""
    return name.replace("-", "_")


def chosen_tests(words: str, known: tuple[str, ...]) -> list[str]:
    """The corpus's sets that ``--test_sets`` names; all of them if it names none.

    Raises:
        ConfigError: a set is unknown.
    """
    names = {directory_name(name): name for name in known}
    for word in words.split():
        if word not in names:
            raise ConfigError(f"--test_sets '{word}': unknown set; expected some of {' '.join(names)}")
    return [names[word] for word in dict.fromkeys(words.split())] or list(known)


def read_set(directory: Path, files: Iterable[Path], jobs: int, log: Log) -> list[Utterance]:
    """All utterances of ``<directory>/<speaker>/<chapter>``, given the files below, by id; read in `jobs` threads."""
    chapters: dict[Path, Chapter] = {}
    odd: dict[Path, str] = {}
    for path in files:
        speaker, chapter, *_ = (*path.relative_to(directory).parts, "", "")
        home = directory / speaker / chapter
        if not ID.fullmatch(speaker) or not chapter:
            odd[directory / speaker] = "entries are not speakers and were left out"
        elif not ID.fullmatch(chapter) or home == path:
            odd[home] = "entries are not chapters and were left out"
        else:
            chapters.setdefault(home, Chapter(home, speaker)).files.append(path)
    for path, kind in odd.items():
        log.tolerate(kind, str(path))
    read_all(read_chapter, chapters.values(), jobs, log)
    return sorted((u for chapter in chapters.values() for u in chapter.utterances.values()), key=lambda u: u.name)


def read_chapter(chapter: Chapter) -> Log:
    """Reads and checks all files of a chapter into it."""
    log = Log()
    for path in sorted(chapter.files, key=lambda path: (path.suffix.lower() in LOSSY, path)):
        is_audio = path.parent == chapter.directory and path.suffix.lower() in (".flac", ".wav", *LOSSY)
        match = UTTERANCE.fullmatch(path.stem) if is_audio else None
        if match and path.stem in chapter.utterances:
            log.tolerate("recordings that also exist in a better container were left out", str(path))
        elif match and f"{match[1]}-{match[2]}" == chapter.prefix:
            utterance = chapter.utterances[path.stem] = Utterance(path.stem, chapter.speaker, path)
            try:
                utterance.num_samples = checked_length(path)
            except UserError as error:
                log.reject(path, error)
                del chapter.utterances[path.stem]
        elif match:
            log.error(f"{path}: an utterance of speaker {match[1]}, chapter {match[2]}; move it there, or remove it")
        elif path != chapter.transcripts:
            log.tolerate("files are not of a chapter and were left out", str(path))
    read_transcripts(chapter, log)
    return log


def checked_length(path: Path) -> int:
    """Number of samples of a file in the corpus's format, as FLAC whose last sample can be read.

    Raises:
        UserError: it has another format, or is damaged or truncated.
    """
    import soundfile

    if path.suffix.lower() in LOSSY:
        raise UserError(lossy(path))
    info = audio_info(path)
    check_format(info, RATE_HZ)
    if info.container != "flac":  # the header has been compared with the size of the file
        return info.num_samples
    try:
        with soundfile.SoundFile(path) as decoder:
            decoder.seek(info.num_samples - 1)
            complete = len(decoder.read(1, dtype="int16")) == 1
    except (soundfile.SoundFileError, RuntimeError):
        complete = False
    if not complete:
        raise UserError(f"{path}: damaged or truncated FLAC, sample {info.num_samples} cannot be read; {COPY_AGAIN}")
    return info.num_samples


def read_transcripts(chapter: Chapter, log: Log) -> None:
    """Texts from a chapter's ``.trans.txt``; what it lacks is counted, as likelihoods need no text."""
    path = chapter.transcripts
    if path not in chapter.files:
        log.tolerate("chapters have no .trans.txt", str(chapter.directory))
        return
    try:
        lines = read_lines(path)
    except UserError as error:
        log.error(str(error))
        return
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition(" ")
        match = UTTERANCE.fullmatch(name)
        if not match or not text.strip():
            log.error(f"{path}:{number}: '{line.strip()[:40]}'; expected an utterance of {chapter.prefix} and its text")
        elif f"{match[1]}-{match[2]}" != chapter.prefix:
            log.error(f"{path}:{number}: {name} is not of chapter {chapter.prefix}; move the line there, or remove it")
        elif name in first:
            log.error(f"{path}:{number}: {name} has a transcript in line {first[name]} already; remove one of the two")
        elif name not in chapter.utterances:
            log.tolerate("transcripts have no audio file", name)
        elif text.strip() == PLACEHOLDER:
            log.tolerate("transcripts are a placeholder and were left out", name)
        else:
            chapter.utterances[name].text = " ".join(text.split())
        first.setdefault(name, number)
    for name in chapter.utterances:
        if name not in first:
            log.tolerate("utterances have no transcript", name)


def read_speakers(root: Path, log: Log) -> dict[str, str]:
    """Sex (f or m) of each speaker in SPEAKERS.TXT."""
    path = _table(root)
    if not path.exists():
        log.error(f"{path}: no such file; copy it from any archive of the corpus, each has it")
        return {}
    sexes = {}
    for number, line in enumerate(read_lines(path), 1):
        columns = [column.strip() for column in line.split("|")]
        if line.startswith(";") or not line.strip():
            continue
        if len(columns) >= 5 and ID.fullmatch(columns[0]) and columns[1] in ("F", "M"):
            sexes[columns[0]] = columns[1].lower()
        else:
            log.error(f"{path}:{number}: '{line[:40]}'; expected 'speaker | F or M | set | minutes | name'")
    return sexes


def draw_speakers(speakers: Iterable[str], sexes: dict[str, str], count: int) -> set[str]:
    """The same `count` of some speakers on every machine, women and men in turn; where there are none, fewer."""
    order = shuffled((speaker for speaker in speakers if speaker in sexes), 0)
    rank = {speaker: i for sex in "fm" for i, speaker in enumerate(s for s in order if sexes[s] == sex)}
    return set(sorted(order, key=rank.__getitem__)[:count])


def count_utterances(name: str, found: int, expected: int, archive: str) -> None:
    """Warns of a set that is not complete, or holds more than the corpus does."""
    if found != expected:
        warn(f"{name}: {found} utterances; expected {expected}; if it should be complete, unpack {archive} again")


def find_sets(root: Path, names: Iterable[str], log: Log) -> dict[str, list[Path]]:
    """The files of LibriSpeech's sets of these names, and under "" those of all sets."""
    return {**{name: corpus_files(log, root / name) for name in names}, "": corpus_files(log, _table(root))}


def _table(root: Path) -> Path:
    """The table of speakers, in any case."""
    return child(root, "SPEAKERS.TXT") or root / "SPEAKERS.TXT"


def read_sets(root: Path, files: dict[str, list[Path]], jobs: int, log: Log) -> dict[str, list[Utterance]]:
    """The utterances of sets that were found, counted."""
    sets = {}
    for name in filter(None, files):
        sets[name] = read_set(root / name, files[name], jobs, log)
        count_utterances(name, len(sets[name]), NUMBER_OF_UTTERANCES[name], f"{name}.tar.gz")
    return sets


def check_speakers(sets: dict[str, list[Utterance]], log: Log) -> None:
    """Finds speakers who are in more than one set."""
    homes: dict[str, str] = {}
    for name, utterances in sets.items():
        for speaker in sorted({utterance.speaker for utterance in utterances}, key=int):
            if speaker in homes:
                log.error(
                    f"speaker {speaker} is in {homes[speaker]} and in {name}; no set shares speakers with another in "
                    "the corpus: remove the directory that is a copy"
                )
            homes.setdefault(speaker, name)


def collect(utterances: list[Utterance], sexes: dict[str, str], log: Log) -> DataDirectory:
    """The data directory of some utterances."""
    data = DataDirectory({utterance.name: utterance.speaker for utterance in utterances})
    data.wav = {utterance.name: utterance.audio for utterance in utterances}
    data.num_samples = {utterance.name: utterance.num_samples for utterance in utterances}
    data.text = {utterance.name: utterance.text for utterance in utterances if utterance.text}
    for speaker in data.spk2utt:
        if speaker in sexes:
            data.spk2gender[speaker] = sexes[speaker]
        else:
            log.tolerate("speakers are not in SPEAKERS.TXT (analyses of gender will lack them)", speaker)
    return data
