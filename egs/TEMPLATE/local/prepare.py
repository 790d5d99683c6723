"""Makes the data directories train, valid and test from a corpus of audio.

FILL IN: the layout of the corpus. Here it is <corpus>/<set>/<speaker>/<name>.wav, with files of 16-bit mono PCM.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.audio import audio_info, log_oddities, read_audio
from speechlvm.data.corpora.preparation import add_max_bad, corpus_files, prepare_sets, read_all, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError

SETS = ("train", "valid", "test")
RATE_HZ = 16000  # FILL IN: the sampling rate that all files have


@dataclass
class Utterance:
    """An utterance, and what was read from its file.

    Attributes:
        name: its id, made of [A-Za-z0-9_.-]; begins with the speaker's.
        speaker: id of the speaker.
        use: its set.
        path: its audio.
        num_samples: length of the audio.
    """

    name: str
    speaker: str
    use: str
    path: Path
    num_samples: int = 0


def find_utterances(corpus: Path, files: list[Path], log: Log) -> list[Utterance]:
    """All utterances of the corpus, given its files.

    FILL IN: what your corpus's folders and files are called, and which set each utterance is in. A division that others
    use is a list in conf/; one of your own is drawn with `speechlvm.data.corpora.preparation.shuffled`.
    """
    found = []
    for use in SETS:
        if not (corpus / use).is_dir():
            log.error(f"{corpus / use}: no such directory; expected {', '.join(SETS)} in the corpus's directory")
    for path in files:
        use, *between, _ = path.relative_to(corpus).parts
        if len(between) != 1 or path.suffix != ".wav":
            log.tolerate("files are not <set>/<speaker>/<name>.wav and were left out", str(path))
        else:
            (speaker,) = between
            found.append(Utterance(f"{speaker}-{path.stem}", speaker, use, path.absolute()))
    return found


def read_utterance(utterance: Utterance) -> Log:
    """Reads all of an utterance's audio, so that what is wrong with it is known before anything is trained."""
    log = Log()
    try:
        # what is not 16-bit mono goes through speechlvm.data.corpora.convert.convert_audio first
        utterance.num_samples = len(read_audio(utterance.path, RATE_HZ))
        log_oddities(audio_info(utterance.path), log)
    except UserError as error:
        log.reject(utterance.path, error)
    return log


def check_names(utterances: list[Utterance], log: Log) -> None:
    """No two utterances have one id, and no speaker of a test set is in another set."""
    first: dict[str, Utterance] = {}
    uses: dict[str, str] = {}
    for utterance in utterances:
        if (other := first.setdefault(utterance.name, utterance)) is not utterance:
            log.error(f"{utterance.path}: the same id, {utterance.name}, as {other.path}; rename one of the two")
        # where the corpus's own division lets sets share speakers, this is no error
        if (use := uses.setdefault(utterance.speaker, utterance.use)) != utterance.use:
            log.error(f"{utterance.path}: speaker {utterance.speaker} is also in {use}; expected each in one set")


def make_sets(corpus: Path, files: list[Path], log: Log) -> dict[str, DataDirectory]:
    """The sets, read and checked."""
    utterances = find_utterances(corpus, files, log)
    check_names(utterances, log)
    utterances = read_all(read_utterance, utterances, min(8, len(os.sched_getaffinity(0))), log)
    sets = {}
    for use in SETS:
        part = [utterance for utterance in utterances if utterance.use == use]
        sets[use] = DataDirectory(
            {utterance.name: utterance.speaker for utterance in part},
            wav={utterance.name: utterance.path for utterance in part},
            num_samples={utterance.name: utterance.num_samples for utterance in part},
        )
    return sets


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the sets, unless that is done."""
    log = Log(arguments.max_bad)
    # all that is read, and only that: the sets are made anew when any of it changes
    files = corpus_files(log, *(arguments.corpus / use for use in SETS))
    inputs = {"corpus": stamp(files), "max_bad": arguments.max_bad}

    prepare_sets(arguments.out, inputs, SETS, lambda: make_sets(arguments.corpus, files, log), RATE_HZ, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of the corpus")
    parser.add_argument("--out", type=Path, required=True, help="output directory of the sets")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
