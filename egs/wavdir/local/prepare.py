"""Makes the data directories train, valid and test from any folder of audio files.

Files that are 16-bit and mono already (RIFF WAVE, NIST SPHERE, FLAC) are used in place. Others are converted once, to
<out>/audio, and only as options request. Unreadable files stop the preparation after all have been checked (--max_bad
leaves out some); nothing but conversions is written. Of files with the same samples only one is kept, so that no test
file is in the training set under another name.

Utterance ids are the files' paths below the folder, with '-' for '/' and '_' for what is not in [A-Za-z0-9_.-]; they
begin with the speaker if there is one. Ids that would be equal get a hash of the path.
"""

import argparse
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path

from folder import JOBS, File, Options, counted, find_files, read_headers, read_samples, short_hash, without_copies

from speechlvm.bin.cli import make_parser, positive, run_main
from speechlvm.data.corpora.preparation import add_max_bad, is_prepared, prepare_sets, read_all, shuffled, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.log import Log, shown
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import mark_undone, remove_leftovers

SETS = ("train", "valid", "test")
LONGEST_ID, LONGEST_SPEAKER = 120, 40
FLAGS = {
    "clip": "clip what is beyond full scale",
    "allow_streamed": "read headers without the number of samples",
}


def safe(name: str) -> str:
    """A name in the letters of ids, accents dropped; may be empty."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.replace("/", "-")).strip("-._")


def unique_ids(names: Iterable[str], candidate: Callable[[str], str], longest: int) -> dict[str, str]:
    """An id for each name: its candidate, with a hash of the name where that is empty, too long, or another's too."""
    candidates = {name: candidate(name) for name in names}
    counts = Counter(candidates.values())
    plain = {idea for idea, count in counts.items() if idea and len(idea) <= longest and count == 1}
    return {
        name: idea if idea in plain else f"{idea[:longest]}-{short_hash(name)}".strip("-")
        for name, idea in candidates.items()
    }


def name_utterances(files: list[File], speakers: str, folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """Utterance ids by file name, and the speakers of utterances.

    Args:
        files: with names.
        speakers: "folder", "prefix" or "none" (each utterance is a speaker of its own).
        folder: name of the folder of all, the speaker of files directly in it.
    """

    def speaker_of(name: str) -> str:
        path = Path(name)
        speaker = re.split("[-_]", path.stem.lstrip("-_"))[0] if speakers == "prefix" else path.parent.name or folder
        return unicodedata.normalize("NFC", speaker)

    names = [file.name for file in files]
    if speakers == "none":
        ids = unique_ids(names, lambda name: safe(os.path.splitext(name)[0]), LONGEST_ID)
        return ids, {utterance: utterance for utterance in ids.values()}
    spoken = {name: speaker_of(name) for name in names}
    speaker_ids = unique_ids(sorted(set(spoken.values())), safe, LONGEST_SPEAKER)

    def candidate(name: str) -> str:
        speaker, stem = speaker_ids[spoken[name]], safe(Path(name).stem)
        return stem if re.match(rf"{re.escape(speaker)}(?![A-Za-z0-9])", stem) else f"{speaker}-{stem}"

    ids = unique_ids(names, candidate, LONGEST_ID)
    return ids, {utterance: speaker_ids[spoken[name]] for name, utterance in ids.items()}


def size_of(text: str, total: int, option: str, what: str) -> int:
    """How many of `total` are meant by a share ("0.1") or a number ("20"); of a share at least one.

    Raises:
        ConfigError: neither, or none or all of them.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if text.isdecimal():
        number = int(text)
    elif 0 < value < 1:
        number = max(1, round(value * total))
    else:
        raise ConfigError(f"--{option} {text}: expected a share below 1 (0.1), or a number of {what} (20)")
    if not 0 < number < total:
        raise ConfigError(f"--{option} {text}: expected 1 to {total - 1}, as there are {counted(total, what[:-1])}")
    return number


def divide(utt2spk: dict[str, str], names: dict[str, str], arguments: argparse.Namespace) -> dict[str, set[str]]:
    """The utterances of each set. A place in the draw depends on a file's (or speaker's) own name and on no other.

    Raises:
        UserError: fewer than three files or speakers.
        ConfigError: the sizes leave nothing for training.
    """
    by_speaker = arguments.split == "speaker"
    units = sorted(set(utt2spk.values())) if by_speaker else list(names)
    what = "speakers" if by_speaker else "files"
    if len(units) < len(SETS):
        hint = "--split random, or other --speakers" if by_speaker else "cut recordings into several files, or add some"
        raise UserError(
            f"{shown(arguments.wav_dir)}: {counted(len(units), what[:-1])}; at least {len(SETS)} are needed, one for "
            f"each of {', '.join(SETS)}; {hint}"
        )
    order = shuffled(units, seed=0)
    test = size_of(arguments.test_size, len(units), "test_size", what)
    valid = size_of(arguments.valid_size, len(units), "valid_size", what)
    if test + valid >= len(units):
        raise ConfigError(
            f"--valid_size {arguments.valid_size} --test_size {arguments.test_size}: {valid} + {test} of {len(units)} "
            f"{what} leave none for training; expected less"
        )
    place = {unit: "test" if i < test else "valid" if i < test + valid else "train" for i, unit in enumerate(order)}
    sets: dict[str, set[str]] = {name: set() for name in SETS}
    for name, utterance in names.items():
        sets[place[utt2spk[utterance] if by_speaker else name]].add(utterance)
    return sets


def make_sets(
    files: list[File], rate_hz: int, options: Options, arguments: argparse.Namespace, log: Log
) -> dict[str, DataDirectory]:
    """The sets, converted where needed, read and checked.

    Raises:
        UserError: there are errors.
    """
    folder = arguments.out.absolute() / "audio"
    remove_leftovers(folder)
    files = read_all(lambda file: read_samples(file, rate_hz, options, folder), files, JOBS, log)
    if log.failed:
        log.report()
    many = sum(log.converted.values())
    where = f" to 16-bit mono in {shown(folder)}:" if many else ""
    print(
        f"{counted(len(files), 'audio file')} of {rate_hz} Hz: {len(files) - many} used where they are, "
        f"{many} converted{where}"
    )
    for kind, number in sorted(log.converted.items()):
        print(f"  {number} {kind}")
    kept = {file.name: file for file in without_copies(files, log)}
    names, utt2spk = name_utterances(list(kept.values()), arguments.speakers, arguments.wav_dir.absolute().name)
    sets = divide(utt2spk, names, arguments)
    by_id = {utterance: kept[name] for name, utterance in names.items()}
    remove_stale(folder, {file.audio for file in files})
    return {
        name: DataDirectory(
            {utterance: utt2spk[utterance] for utterance in utterances},
            wav={utterance: by_id[utterance].audio.absolute() for utterance in utterances},
            num_samples={utterance: by_id[utterance].num_samples for utterance in utterances},
        )
        for name, utterances in sets.items()
    }


def remove_stale(folder: Path, used: set[Path]) -> None:
    """Removes earlier conversions of files that are gone or no longer need it."""
    for path in folder.glob("*.wav") if folder.is_dir() else ():
        if path not in used:
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)


def prepare(arguments: argparse.Namespace) -> None:
    """Finds the files, reads and divides them, and writes the data directories, unless all that is done."""
    log = Log(arguments.max_bad)
    found = find_files(arguments.wav_dir, [arguments.out, *arguments.apart], log)
    names = ("speakers", "split", "valid_size", "test_size", "max_bad")
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    inputs = {
        "options": {**asdict(options), **{name: getattr(arguments, name) for name in names}},
        "files": stamp(found),
    }
    files = [File(path, shown(str(path.relative_to(arguments.wav_dir)).replace("\\", r"\\"))) for path in found]
    rate_hz = None
    if log.failed or not is_prepared(arguments.out, inputs, SETS):
        mark_undone(arguments.out)
        files, rate_hz = read_headers(files, options, log)

    def make() -> dict[str, DataDirectory]:
        return make_sets(files, rate_hz, options, arguments, log)

    prepare_sets(arguments.out, inputs, SETS, make, rate_hz, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the folder."""
    parser = make_parser(__doc__)
    parser.add_argument("--wav_dir", type=Path, required=True, help="directory of audio files, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/, test/ and audio/")
    parser.add_argument("--apart", type=Path, nargs="*", default=[], help="subdirectories to skip")
    parser.add_argument("--rate_hz", type=positive(int), help="resample to this rate; default: the files' own")
    parser.add_argument("--channel", type=channel, help="channel of multi-channel files: mix, or an index from 0")
    parser.add_argument("--bits", type=int, choices=(16,), help="round samples of other formats to 16-bit integers")
    for name, meaning in FLAGS.items():
        parser.add_argument(f"--{name}", choices=("true", "false"), default="false", help=meaning)
    parser.add_argument("--speakers", choices=("folder", "prefix", "none"), default="none", help="where ids come from")
    parser.add_argument(
        "--split", choices=("random", "speaker"), default="random", help="split by files or by speakers"
    )
    parser.add_argument(
        "--valid_size",
        default="0.1",
        help="size of the validation set: a fraction (0.1) or a number (20) of files or speakers",
    )
    parser.add_argument("--test_size", default="0.1", help="the same for the test set")
    add_max_bad(parser)
    arguments = parser.parse_args(argv)
    for name in FLAGS:
        setattr(arguments, name, getattr(arguments, name) == "true")
    if arguments.split == "speaker" and arguments.speakers == "none":
        parser.error("--split speaker: say who speaks, by --speakers folder or --speakers prefix")
    prepare(arguments)
    return 0


def channel(text: str) -> int | str:
    """mix, or the number of a channel."""
    if text != "mix" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}': expected mix, or the number of a channel from 0")
    return int(text) if text != "mix" else text


if __name__ == "__main__":
    run_main(main)
