"""Makes the data directories train, valid and test from festvox-ru, a Russian voice with one speaker.

The voice has ``wav/ru_0001.wav``, ``lab/ru_0001.lab`` and so on, with gaps in the numbers, and ``etc/txt.done.data``
with a line ``( ru_0001 "text" )`` for each. The first line of a .lab file is ``#``; the others are ``0.34200 125 pau``:
the end of a segment in seconds, a colour, and the phone. The last pause ends some milliseconds before the audio does.

Phones get the prefix `RUSSIAN_PREFIX`, consecutive pauses become one, and the last lasts to the end of the audio.
In texts, ``+`` marks stressed vowels and is removed.
"""

import argparse
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.audio import audio_info, log_oddities, read_audio
from speechlvm.data.corpora.preparation import (
    add_max_bad,
    corpus_files,
    find_corpus,
    prepare_sets,
    read_all,
    shuffled,
    stamp,
)
from speechlvm.data.kaldi.directory import DataDirectory, Interval
from speechlvm.data.kaldi.phones import RUSSIAN_CODES, RUSSIAN_PREFIX
from speechlvm.data.log import Log, shown, warn
from speechlvm.utils.errors import UserError
from speechlvm.utils.text import read_lines

RATE_HZ = 16000
SPEAKER, SEX = "ru", "m"
TEXTS = "etc/txt.done.data"
PAUSE = "pau"
SETS = ("train", "valid", "test")
HELD_OUT = 0.1  # of the utterances are in valid, and as many in test: 62 of 620
WHOLE = {"utterances": 620, "labels": 54_372, "frames": 95_532_626}  # of version 0.5+dfsg-6
NAME = re.compile(r"ru_[0-9]{4}")
TEXT = re.compile(rf'\( ({NAME.pattern}) "([^"]+)" \)')
END = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass
class Utterance:
    """The files of one utterance, and what was read from them."""

    name: str
    audio: Path
    labels: Path
    text: str
    num_samples: int = 0
    num_labels: int = 0
    phones: list[Interval] = field(default_factory=list)


def find_root(corpus: Path) -> Path:
    """The directory of the voice.

    Raises:
        UserError: saying what was looked for and where.
    """

    def holds_all(place: Path) -> bool:
        return (place / "wav").is_dir() and (place / "lab").is_dir() and (place / TEXTS).is_file()

    looked_for = f"directories wav and lab beside {TEXTS}"
    return find_corpus(corpus, holds_all, ("WAV", "LAB", "ETC"), "voice festvox-ru", looked_for)


def read_texts(path: Path, log: Log) -> dict[str, str]:
    """The texts by utterance."""
    texts: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        match = TEXT.fullmatch(line.strip())
        if not match:
            log.error(f"""{path}:{number}: expected '( ru_0001 "text" )'; found '{shown(line[:40])}'""")
        elif match[1] in texts:
            log.error(f"{path}:{number}: a second text of {match[1]}; remove one of the two")
        else:
            texts[match[1]] = " ".join(match[2].replace("+", "").split())
    return texts


def find_utterances(root: Path, files: list[Path], log: Log) -> list[Utterance]:
    """All utterances of which there is audio, labels or a text."""
    texts = read_texts(root / TEXTS, log)
    names = set(texts)
    for path in files:
        if NAME.fullmatch(path.stem) and path in (root / f"wav/{path.stem}.wav", root / f"lab/{path.stem}.lab"):
            names.add(path.stem)
        elif path != root / TEXTS:
            log.tolerate("files are not of an utterance and were left out", shown(path))
    for name in sorted(names - texts.keys()):
        log.error(f"{root / TEXTS}: no text of {name}; unpack the package again")
    paths = {name: (root / f"wav/{name}.wav", root / f"lab/{name}.lab") for name in sorted(names)}
    return [Utterance(name, *both, texts.get(name, "")) for name, both in paths.items()]


def read_utterance(utterance: Utterance) -> Log:
    """Reads and checks the audio and the labels of an utterance into it."""
    log = Log()
    try:
        utterance.num_samples = len(read_audio(utterance.audio, RATE_HZ))
        log_oddities(audio_info(utterance.audio), log)
    except UserError as error:
        log.reject(utterance.audio, error)
        return log
    try:
        read_labels(utterance, log)
    except UserError as error:
        log.error(str(error))
    return log


def read_labels(utterance: Utterance, log: Log) -> None:
    """Reads phones; each begins where the one before ends.

    Raises:
        UserError: the file cannot be read.
    """
    path, phones = utterance.labels, utterance.phones
    header, *lines = read_lines(path) or [""]
    if header != "#":
        log.error(f"{path}:1: expected '#' alone; found '{shown(header[:40])}'")
    start, label = 0, ""
    for number, line in enumerate(lines, 2):
        parts = line.split()
        if len(parts) != 3 or not END.fullmatch(parts[0]):
            log.error(f"{path}:{number}: expected 'end colour phone', as '0.34200 125 pau'; found '{shown(line[:40])}'")
            return
        end, label = round(float(parts[0]) * RATE_HZ), parts[2]
        if end <= start:
            log.error(f"{path}:{number}: '{label}' ends at {parts[0]} s; expected an end after {start / RATE_HZ:.5f} s")
        elif end > utterance.num_samples:
            length = f"{utterance.num_samples / RATE_HZ:.5f} s"
            log.error(f"{path}:{number}: '{label}' ends at {parts[0]} s; expected an end in the audio's {length}")
        elif label == PAUSE and phones and phones[-1].label == PAUSE:
            phones[-1] = phones[-1]._replace(end_sample=end)
        elif label == PAUSE:
            phones.append(Interval(start, end, label))
        elif RUSSIAN_PREFIX + label in RUSSIAN_CODES:
            phones.append(Interval(start, end, RUSSIAN_PREFIX + label))
        else:
            log.error(f"{path}:{number}: unknown phone '{label}'; expected {PAUSE} or one of the {len(RUSSIAN_CODES)}")
        start = max(start, end)
    if label != PAUSE:
        log.error(f"{path}: the last label is '{label}'; expected {PAUSE}, as in all files; it may be cut")
    elif phones:
        phones[-1] = phones[-1]._replace(end_sample=utterance.num_samples)
    utterance.num_labels = len(lines)


def divide(names: Iterable[str]) -> dict[str, str]:
    """The set of each utterance; drawn by hash, as bits per sample rise along the numbers."""
    order = shuffled(names, seed=0)
    held_out = max(1, round(HELD_OUT * len(order)))
    return {name: ("test", "valid", "train")[min(index // held_out, 2)] for index, name in enumerate(order)}


def make_sets(root: Path, files: list[Path], log: Log) -> dict[str, DataDirectory]:
    """The sets, read and checked; what is wrong goes to the log."""
    utterances = find_utterances(root, files, log)
    uses = divide(utterance.name for utterance in utterances)
    utterances = read_all(read_utterance, utterances, min(8, len(os.sched_getaffinity(0))), log)
    counts = {
        "utterances": len(utterances),
        "labels": sum(utterance.num_labels for utterance in utterances),
        "frames": sum(utterance.num_samples for utterance in utterances),
    }
    if counts != WHOLE and not log.failed:
        found, expected = (", ".join(f"{count} {what}" for what, count in one.items()) for one in (counts, WHOLE))
        warn(f"{root}: {found}; the whole corpus (version 0.5+dfsg-6) has {expected}")
    return {use: collect([utterance for utterance in utterances if uses[utterance.name] == use]) for use in SETS}


def collect(utterances: list[Utterance]) -> DataDirectory:
    """The data directory of some utterances."""
    return DataDirectory(
        {utterance.name: SPEAKER for utterance in utterances},
        wav={utterance.name: utterance.audio.resolve() for utterance in utterances},
        num_samples={utterance.name: utterance.num_samples for utterance in utterances},
        text={utterance.name: utterance.text for utterance in utterances},
        phones={utterance.name: utterance.phones for utterance in utterances},
        spk2gender={SPEAKER: SEX},
    )


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the sets, unless that is done."""
    root = find_root(arguments.corpus)
    log = Log(arguments.max_bad)
    files = corpus_files(log, root / "wav", root / "lab", root / TEXTS)
    inputs = {"corpus": stamp(files), "max_bad": arguments.max_bad}
    prepare_sets(arguments.out, inputs, SETS, lambda: make_sets(root, files, log), RATE_HZ, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of the voice, or one above it")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/ and test/")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
