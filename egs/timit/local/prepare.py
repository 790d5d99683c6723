"""Makes the data directories train, valid and test from a corpus in TIMIT's layout.

Copies in the wild differ: names in capitals or not, audio as NIST SPHERE, RIFF or FLAC, ``SA1.WAV`` or ``SA1.WAV.wav``
or ``SA1.flac`` or several of them, the disc's root or a directory some way above it. All are read. Errors in files stop
the preparation after all files have been checked, and nothing is written; missing files are warnings.

TRAIN and TEST are the corpus's own. The validation set is drawn from TRAIN: single utterances (so that its speakers are
in the training set too, as in the published experiments), or whole speakers.
"""

import argparse
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.audio import audio_info, log_oddities, read_audio
from speechlvm.data.corpora.preparation import (
    LOSSY,
    MISALIGNED,
    add_max_bad,
    child,
    corpus_files,
    find_corpus,
    lossy,
    misaligned_frames,
    prepare_sets,
    read_all,
    shuffled,
    stamp,
)
from speechlvm.data.kaldi.directory import DataDirectory, Interval
from speechlvm.data.kaldi.phones import CODES
from speechlvm.data.log import Log, shown, warn
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.text import read_lines, read_text

RATE_HZ = 16000
FULL_CORPUS = (4620, 1680)
VALID_SHARE = 0.05  # 231 of 4 620
PAST_END_SAMPLES = 160
AUDIO = "|".join(["FLAC", "SPH", "WAV", *(ending[1:].upper() for ending in LOSSY)])
PLACE = re.compile(rf"(TRAIN|TEST)/(DR[0-9])/([FM][A-Z]{{3}}[0-9])/(S[AIX][0-9]+)\.(PHN|WRD|TXT|(?:WAV\.)?(?:{AUDIO}))")
HEIGHT = re.compile(r"([3-8])'\s*([0-9]{1,2})\"?")
CM_PER_INCH = 2.54


@dataclass
class Utterance:
    """The files of one utterance, and what was read from them."""

    use: str
    region: str
    speaker: str
    sentence: str
    audio: list[Path] = field(default_factory=list)
    lossy: list[Path] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    num_samples: int = 0
    text: str = ""
    phones: list[Interval] = field(default_factory=list)
    words: list[Interval] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Utterance id."""
        return f"{self.speaker}_{self.sentence}"


def find_root(corpus: Path) -> Path:
    """The directory with TRAIN and TEST.

    Raises:
        UserError: saying what was looked for and where.
    """

    def holds_both(place: Path) -> bool:
        return all(path is not None and path.is_dir() for path in (child(place, "TRAIN"), child(place, "TEST")))

    looked_for = "directories TRAIN and TEST (in any case), side by side"
    return find_corpus(corpus, holds_both, ("TRAIN", "TEST"), "corpus in TIMIT's layout", looked_for)


def find_utterances(root: Path, files: Iterable[Path], log: Log) -> list[Utterance]:
    """All utterances among the files of TRAIN/DRn/SPKR and TEST/DRn/SPKR, sorted by id."""
    found: dict[str, Utterance] = {}
    homes: dict[str, dict[Path, None]] = {}
    for path in files:
        match = PLACE.fullmatch("/".join(path.relative_to(root).parts).upper())
        if not match:
            log.tolerate("files are not of an utterance and were left out", str(path))
            continue
        use, region, speaker, sentence, ending = match.groups()
        homes.setdefault(speaker, {})[path.parent] = None
        if next(iter(homes[speaker])) != path.parent:
            continue  # an error, below
        utterance = Utterance(use, region, speaker, sentence)
        utterance = found.setdefault(utterance.name, utterance)
        if path.suffix.lower() in LOSSY:
            utterance.lossy.append(path)
        elif ending not in ("PHN", "WRD", "TXT"):
            utterance.audio.append(path)
        elif ending in utterance.files:
            log.error(f"{path}: the same file as {utterance.files[ending]}; remove one of the two")
        else:
            utterance.files[ending] = path
    for speaker, (home, *others) in homes.items():
        for other in others:
            log.error(f"{other}: speaker {speaker} is also in {home}; remove one of the two")
    for utterance in found.values():
        for path in utterance.lossy:
            if utterance.audio:
                log.tolerate("recordings that also exist in a better container were left out", str(path))
            else:
                log.reject(path, lossy(path))
        if not utterance.audio and not utterance.lossy:
            any_file = next(iter(utterance.files.values()))
            path = any_file.parent / f"{utterance.sentence}.WAV"
            log.reject(path, f"{path}: no such file; copy it again from the corpus")
    return [found[name] for name in sorted(found)]


def read_utterance(utterance: Utterance, phones: Collection[str]) -> Log:
    """Reads and checks all files of an utterance into it; `phones` are the labels that its .PHN file may have."""
    log = Log()
    try:
        samples = read_audio(utterance.audio[0], RATE_HZ)
        log_oddities(audio_info(utterance.audio[0]), log)
        for other in utterance.audio[1:]:
            if not np.array_equal(samples, read_audio(other, RATE_HZ)):
                log.error(f"{other}: other samples than {utterance.audio[0]}; remove one of the two")
            else:
                log.tolerate("utterances have the same audio in two files", utterance.name)
    except UserError as error:
        log.reject(utterance.audio[0], error)
        return log
    utterance.num_samples = len(samples)
    if misaligned_frames(samples):
        log.tolerate(MISALIGNED, utterance.name)
    for ending in ("PHN", "WRD", "TXT"):
        if ending not in utterance.files:
            log.tolerate(f"utterances have no .{ending} file", utterance.name)
    if "PHN" in utterance.files:
        utterance.phones = read_segments(utterance, "PHN", log, phones)
    if "WRD" in utterance.files:
        utterance.words = read_segments(utterance, "WRD", log)
    if "TXT" in utterance.files:
        text = read_text(utterance.files["TXT"]).strip()
        match = re.fullmatch(r"[0-9]+\s+([0-9]+)\s+(\S.*)", text)
        if match:
            utterance.text = " ".join(match.group(2).split())
            if int(match.group(1)) != utterance.num_samples:
                log.tolerate("audio files have not the number of samples that their .TXT file says", utterance.name)
        else:
            found = shown(text[:40])
            log.error(
                f"{utterance.files['TXT']}:1: expected 'start end text' on one line, as '0 46797 She'; found '{found}'"
            )
    return log


def read_segments(utterance: Utterance, ending: str, log: Log, phones: Collection[str] = ()) -> list[Interval]:
    """Lines ``start end label`` of a .PHN or .WRD file, cut at the end of the audio.

    Phones must follow one another without gaps (words need not, in the corpus itself) and be among `phones`.
    Ends up to PAST_END_SAMPLES past the audio are counted.
    """
    path, count = utterance.files[ending], utterance.num_samples
    segments: list[Interval] = []
    previous_end, past_end = 0, False  # None: the line above is invalid
    for number, line in enumerate(read_lines(path), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3:
            log.error(f"{path}:{number}: {len(parts)} columns; expected 'start end label'")
            previous_end = None
            continue
        if not (parts[0].isdecimal() and parts[1].isdecimal()):
            log.error(f"{path}:{number}: times '{parts[0]}' and '{parts[1]}'; expected whole sample numbers")
            previous_end = None
            continue
        start, end, label = int(parts[0]), int(parts[1]), parts[2]
        if end < start:
            log.error(f"{path}:{number}: '{label}' ends at {end}, before its start at {start}; correct the times")
        elif end > count + PAST_END_SAMPLES:
            log.error(
                f"{path}:{number}: '{label}' ends at {end}, {end - count} samples past the audio's {count}; "
                f"expected at most {PAST_END_SAMPLES}; the audio may be of another utterance, or cut"
            )
        elif ending == "PHN" and previous_end not in (start, None):
            order = "before" if start < previous_end else "after"
            log.error(
                f"{path}:{number}: '{label}' starts at {start}, {order} the end at {previous_end} of the one above; "
                "correct the times, or remove the file"
            )
        elif ending == "PHN" and label not in phones:
            log.error(f"{path}:{number}: unknown phone '{label}'; expected one of the corpus's {len(phones)} codes")
        elif min(end, count) <= start:
            log.tolerate(f"segments of .{ending} files have no samples and were left out", f"{path}:{number}")
        else:
            past_end |= end > count
            segments.append(Interval(start, min(end, count), label))
        previous_end = max(previous_end or 0, end)
    if past_end:
        log.tolerate(
            f".{ending} files end up to {PAST_END_SAMPLES} samples past the audio and were cut there", utterance.name
        )
    if not segments and not log.errors:
        log.tolerate(f".{ending} files are empty", str(path))
    return sorted(segments)


def table_of_speakers(root: Path) -> Path | None:
    """DOC/SPKRINFO.TXT, or SPKRINFO.TXT, if there is one."""
    directory = child(root, "DOC") or root
    return child(directory, "SPKRINFO.TXT") if directory.is_dir() else None


def read_speakers(path: Path | None, data: list[DataDirectory], log: Log) -> None:
    """Sex and height of the speakers from the table into the data directories."""
    speakers = {speaker for part in data for speaker in part.utt2spk.values()}
    rows = [line.split() for line in read_lines(path) if not line.startswith(";")] if path else []
    table = {(row[1] + row[0]).upper(): row for row in rows if len(row) >= 7}
    genders, heights = {}, {}
    for speaker in sorted(speakers):
        row = table.get(speaker)
        if row is None:
            where = "SPKRINFO.TXT" if path else "SPKRINFO.TXT, which is not there"
            log.tolerate(f"speakers are not in {where} (analyses of gender and height will lack them)", speaker)
            continue
        if row[1].lower() in ("f", "m"):
            genders[speaker] = row[1].lower()
        match = HEIGHT.fullmatch(row[6])
        if match and int(match.group(2)) < 12:
            heights[speaker] = round(CM_PER_INCH * (12 * int(match.group(1)) + int(match.group(2))), 1)
        else:
            log.tolerate("speakers have no height in SPKRINFO.TXT (its analysis will lack them)", speaker)
    for part in data:
        for speaker in part.spk2utt:
            if speaker in genders:
                part.spk2gender[speaker] = genders[speaker]
            if speaker in heights:
                part.spk2height_cm[speaker] = heights[speaker]


def choose_valid(train: list[Utterance], arguments: argparse.Namespace) -> set[str]:
    """Ids of the utterances of TRAIN that become the validation set.

    Raises:
        ConfigError: the number that was given would leave one of the two sets empty.
        UserError: so would any number.
    """
    if arguments.valid_by == "utterance":
        names = [utterance.name for utterance in train]
        option, asked, total, least = "valid_utterances", arguments.valid_utterances, len(names), 1
    else:
        # Women and men in turn (the first letter of an id is the sex in this layout), so that small sets have both.
        speakers = shuffled({utterance.speaker for utterance in train}, arguments.seed)
        rank = {s: i for sex in "FM" for i, s in enumerate(s for s in speakers if s.startswith(sex))}
        speakers.sort(key=rank.__getitem__)
        option, asked, total, least = "valid_speakers", arguments.valid_speakers, len(speakers), 2
    what = option.removeprefix("valid_")
    if total < 2:
        raise UserError(f"TRAIN has {total} {what}; expected at least 2, one of them for validation")
    if asked is not None and not 0 < asked < total:
        raise ConfigError(f"--{option} {asked}: expected 1 to {total - 1}, as TRAIN has {total} of them")
    count = asked or min(max(least, round(VALID_SHARE * total)), total - 1)
    if arguments.valid_by == "utterance":
        return set(shuffled(names, arguments.seed)[:count])
    return {utterance.name for utterance in train if utterance.speaker in speakers[:count]}


def collect(utterances: list[Utterance]) -> DataDirectory:
    """The data directory of some utterances, without what comes from the table of speakers."""
    data = DataDirectory({utterance.name: utterance.speaker for utterance in utterances})
    for utterance in utterances:
        data.wav[utterance.name] = utterance.audio[0].resolve()
        data.num_samples[utterance.name] = utterance.num_samples
        data.spk2dialect[utterance.speaker] = utterance.region
        for column, value in (
            (data.text, utterance.text),
            (data.phones, utterance.phones),
            (data.words, utterance.words),
        ):
            if value:
                column[utterance.name] = value
    return data


SETS = ("train", "valid", "test")


def prepare(arguments: argparse.Namespace) -> None:
    """Reads the corpus, checks it, divides it and writes the data directories."""
    root = find_root(arguments.corpus)
    options = {name: value for name, value in sorted(vars(arguments).items()) if name not in ("debug", "out", "corpus")}
    log = Log(arguments.max_bad)
    files = corpus_files(log, child(root, "TRAIN"), child(root, "TEST"))
    table = table_of_speakers(root)
    inputs = {"options": options, "corpus": stamp([*files, *filter(None, [table])])}

    def make() -> dict[str, DataDirectory]:
        sets = make_sets(root, files, arguments, log)
        read_speakers(table, list(sets.values()), log)
        return sets

    prepare_sets(arguments.out, inputs, SETS, make, RATE_HZ, log)


def make_sets(root: Path, files: list[Path], arguments: argparse.Namespace, log: Log) -> dict[str, DataDirectory]:
    """The sets, read and checked, without what the table of speakers says.

    Raises:
        UserError: there are errors.
    """
    utterances = find_utterances(root, files, log)
    jobs = min(8, len(os.sched_getaffinity(0)))
    read = partial(read_utterance, phones={*CODES, *arguments.further_phones.split()})
    utterances = read_all(read, [utterance for utterance in utterances if utterance.audio], jobs, log)
    counts = tuple(sum(utterance.use == use for utterance in utterances) for use in ("TRAIN", "TEST"))
    if min(counts) == 0:
        log.error(
            f"{root}: {counts[0]} utterances in TRAIN and {counts[1]} in TEST; expected files DRn/SPKR/SENTENCE.WAV"
        )
    elif counts != tuple(arguments.expected):
        expected = arguments.expected
        warn(f"{counts[0]} utterances in TRAIN and {counts[1]} in TEST; expected {expected[0]} and {expected[1]}")
    if log.failed:
        log.report()
    if arguments.sa == "drop":
        utterances = [utterance for utterance in utterances if not utterance.sentence.startswith("SA")]
        print("sentences SA1 and SA2 left out (--sa drop)")
    train = [utterance for utterance in utterances if utterance.use == "TRAIN"]
    valid = choose_valid(train, arguments)
    return {
        "train": collect([utterance for utterance in train if utterance.name not in valid]),
        "valid": collect([utterance for utterance in train if utterance.name in valid]),
        "test": collect([utterance for utterance in utterances if utterance.use == "TEST"]),
    }


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of the corpus, or the one above it")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/ and test/")
    parser.add_argument("--valid_by", choices=("utterance", "speaker"), default="utterance")
    parser.add_argument("--valid_utterances", type=int, help="default: 5 %% of TRAIN, 231 of the full corpus")
    parser.add_argument("--valid_speakers", type=int, help="for --valid_by speaker; default: 5 %% of them, at least 2")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the validation split")
    parser.add_argument("--sa", choices=("keep", "drop"), default="keep", help="the two sentences that everybody reads")
    parser.add_argument(
        "--expected", type=int, nargs=2, default=FULL_CORPUS, metavar="N", help="utterances in TRAIN and TEST"
    )
    parser.add_argument("--further_phones", default="", help="further phone labels, for an imitation of TIMIT")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
