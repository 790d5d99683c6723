"""Makes the data directories of LibriSpeech or of Mini LibriSpeech.

Errors in files stop the preparation after all files have been checked, and nothing is written; missing files are
warnings.

The development sets are test sets here, so validation holds out speakers of the training set: those in
valid_speakers.txt, or, for Mini LibriSpeech, a woman and a man drawn in the same way.
"""

import argparse
from pathlib import Path

from libri_corpus import (
    RATE_HZ,
    TEST_SETS,
    check_speakers,
    chosen_tests,
    collect,
    directory_name,
    draw_speakers,
    find_root,
    find_sets,
    read_sets,
    read_speakers,
)

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.corpora.preparation import add_max_bad, prepare_sets, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log
from speechlvm.utils.text import read_lines

VALID_SPEAKERS = Path(__file__).with_name("valid_speakers.txt")
MINI_VALID_SPEAKERS = 2
# Training set, validation set and the corpus's test sets of each subset.
SUBSETS = {
    "full": ("train-clean-100", "valid-clean-100", TEST_SETS),
    "mini": ("train-clean-5", "valid-clean-5", ("dev-clean-2",)),
}


def listed_speakers() -> set[str]:
    """The speakers held out of train-clean-100."""
    return {line.split()[0] for line in read_lines(VALID_SPEAKERS) if line and not line.startswith("#")}


def make_sets(
    root: Path, files: dict[str, list[Path]], arguments: argparse.Namespace, log: Log
) -> dict[str, DataDirectory]:
    """The sets, read and checked; what is wrong goes to the log."""
    train, valid, known = SUBSETS[arguments.subset]
    tests = chosen_tests(arguments.test_sets, known)
    sexes = read_speakers(root, log)
    sets = read_sets(root, files, arguments.nj, log)
    check_speakers(sets, log)
    utterances = sets[train]
    speakers = {utterance.speaker for utterance in utterances}
    held_out = listed_speakers() if arguments.subset == "full" else draw_speakers(speakers, sexes, MINI_VALID_SPEAKERS)
    if speakers and not held_out & speakers:
        held_out = draw_speakers(speakers, sexes, MINI_VALID_SPEAKERS)
        for speaker in sorted(held_out, key=int):
            log.tolerate(f"speakers were drawn for validation, as none of {VALID_SPEAKERS.name} is in {train}", speaker)
    for speaker in sorted(held_out - speakers, key=int):
        log.tolerate(f"speakers of {VALID_SPEAKERS.name} are not in {train}", speaker)
    divided = {
        train: [utterance for utterance in utterances if utterance.speaker not in held_out],
        valid: [utterance for utterance in utterances if utterance.speaker in held_out],
        **{name: sets[name] for name in tests},
    }
    return {directory_name(name): collect(part, sexes, log) for name, part in divided.items()}


def prepare(arguments: argparse.Namespace) -> None:
    """Reads the corpus, checks it, divides it and writes the data directories."""
    train, valid, known = SUBSETS[arguments.subset]
    names = [train, *chosen_tests(arguments.test_sets, known)]
    root = find_root(arguments.corpus, names)
    log = Log(arguments.max_bad)
    files = find_sets(root, names, log)
    inputs = {
        "sets": [valid, *names],
        "corpus": stamp(path for paths in files.values() for path in paths),
        "valid_speakers": sorted(listed_speakers()),
        "max_bad": arguments.max_bad,
    }
    directories = [directory_name(name) for name in (valid, *names)]
    prepare_sets(arguments.out, inputs, directories, lambda: make_sets(root, files, arguments, log), RATE_HZ, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="the directory LibriSpeech, or the one above it")
    parser.add_argument("--out", type=Path, required=True, help="output directory of the data directories")
    parser.add_argument("--subset", choices=tuple(SUBSETS), default="full", help="full, or mini: Mini LibriSpeech")
    parser.add_argument("--test_sets", default="", help="test sets of the subset, as 'dev_clean'; empty: all")
    parser.add_argument("--nj", type=int, default=2, help="threads that read")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
