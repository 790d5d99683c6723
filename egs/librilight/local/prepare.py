"""Makes the data directories of Libri-Light's fine-tuning subset (10 h, 1 h or 10 min) and of LibriSpeech's test sets.

The subset is in LibriSpeech's layout below ``1h/<fold>/<clean or other>`` and ``9h/<clean or other>``: 10 h is both, 10
min is the first fold of 1 h. Chapters are divided between 1 h and 9 h, each part with its own transcripts.

Validation holds out two speakers, a woman and a man drawn from those who are not in the first fold, with all their
utterances in the 10 h, for every training set. So 10 min lose nothing, and all three have the same validation set.
"""

import argparse
import sys
from pathlib import Path

from speechlvm.bin.cli import make_parser, run_main
from speechlvm.data.corpora.preparation import (
    add_max_bad,
    corpus_files,
    find_corpus,
    prepare_sets,
    stamp,
)
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log
from speechlvm.utils.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "librispeech/local"))
import libri_corpus as libri

ARCHIVE = "librispeech_finetuning.tgz"
NUMBER_OF_UTTERANCES = {"1h": 286, "9h": 2477}
HOURS = {"10h": ("1h", "9h"), "1h": ("1h",), "10min": ("1h/0",)}
FIRST_FOLD = "1h/0"
VALID_SPEAKERS = 2


def find_root(corpus: Path) -> Path:
    """The directory that holds 1h and 9h.

    Raises:
        UserError: saying what was looked for and where, or what is missing.
    """
    place = find_corpus(
        corpus,
        lambda place: any((place / name).is_dir() for name in NUMBER_OF_UTTERANCES),
        ("1H", "9H"),
        "fine-tuning subset of Libri-Light",
        f"directories {FIRST_FOLD} and 9h",
    )
    if missing := [name for name in (FIRST_FOLD, *NUMBER_OF_UTTERANCES) if not (place / name).is_dir()]:
        raise UserError(f"{place}: lacks {', '.join(missing)}; unpack {ARCHIVE} there (stage 0 does)")
    return place.resolve()


def find_parts(root: Path, log: Log) -> dict[Path, list[Path]]:
    """The files of each ``1h/<fold>/<clean or other>`` and ``9h/<clean or other>``."""
    folds = [*sorted((root / "1h").iterdir()), root / "9h"]
    places = [fold / kind for fold in folds for kind in ("clean", "other")]
    return {place: corpus_files(log, place) for place in places if place.is_dir()}


def read_parts(root: Path, files: dict[Path, list[Path]], jobs: int, log: Log) -> dict[str, list[libri.Utterance]]:
    """The utterances of each ``1h/<fold>`` and of ``9h``, counted."""
    parts: dict[str, list[libri.Utterance]] = {FIRST_FOLD: []}
    first: dict[str, Path] = {}
    for place, paths in files.items():
        utterances = libri.read_set(place, paths, jobs, log)
        parts.setdefault(str(place.parent.relative_to(root)), []).extend(utterances)
        for utterance in utterances:
            if utterance.name in first:
                log.error(f"{utterance.audio}: the same utterance as {first[utterance.name]}; remove one of the two")
            first.setdefault(utterance.name, utterance.audio)
    for name, expected in NUMBER_OF_UTTERANCES.items():
        libri.count_utterances(name, len(select(parts, (name,))), expected, ARCHIVE)
    return parts


def select(parts: dict[str, list[libri.Utterance]], names: tuple[str, ...]) -> list[libri.Utterance]:
    """The utterances at and below some parts."""
    return [u for part, utterances in parts.items() if part.startswith(names) for u in utterances]


def make_sets(
    root: Path,
    librispeech: Path,
    places: dict[Path, list[Path]],
    tests: dict[str, list[Path]],
    arguments: argparse.Namespace,
    log: Log,
) -> dict[str, DataDirectory]:
    """The sets, read and checked; what is wrong goes to the log."""
    sexes = libri.read_speakers(librispeech, log)
    parts = read_parts(root, places, arguments.nj, log)
    everything = select(parts, tuple(NUMBER_OF_UTTERANCES))
    sets = libri.read_sets(librispeech, tests, arguments.nj, log)
    libri.check_speakers({root.name: everything, **sets}, log)
    first_fold = {utterance.speaker for utterance in parts[FIRST_FOLD]}
    held_out = libri.draw_speakers({u.speaker for u in everything} - first_fold, sexes, VALID_SPEAKERS)
    divided = {
        f"train-{arguments.hours}": [u for u in select(parts, HOURS[arguments.hours]) if u.speaker not in held_out],
        "valid": [u for u in everything if u.speaker in held_out],
        **sets,
    }
    return {libri.directory_name(name): libri.collect(part, sexes, log) for name, part in divided.items()}


def prepare(arguments: argparse.Namespace) -> None:
    """Reads both corpora, checks them, divides them and writes the data directories."""
    tests = libri.chosen_tests(arguments.test_sets, libri.TEST_SETS)
    root, librispeech = find_root(arguments.finetuning), libri.find_root(arguments.corpus, tests)
    names = [f"train_{arguments.hours}", "valid", *map(libri.directory_name, tests)]
    log = Log(arguments.max_bad)
    places, test_files = find_parts(root, log), libri.find_sets(librispeech, tests, log)
    files = [path for paths in (*places.values(), *test_files.values()) for path in paths]
    inputs = {"sets": names, "corpora": stamp(files), "max_bad": arguments.max_bad}

    def make() -> dict[str, DataDirectory]:
        return make_sets(root, librispeech, places, test_files, arguments, log)

    prepare_sets(arguments.out, inputs, names, make, libri.RATE_HZ, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpora."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--finetuning", type=Path, required=True, help="the directory librispeech_finetuning, or the one above it"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="the directory LibriSpeech, or the one above it")
    parser.add_argument("--out", type=Path, required=True, help="output directory of the data directories")
    parser.add_argument("--hours", choices=tuple(HOURS), default="10h", help="size of the training set")
    parser.add_argument("--test_sets", default="", help="test sets of LibriSpeech, as 'dev_clean'; empty: all")
    parser.add_argument("--nj", type=int, default=2, help="threads that read")
    add_max_bad(parser)
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
