"""Makes the data directories train, valid and test from motion capture: ASF and AMC, or BVH files.

Searches the whole directory for SUBJECT_TRIAL.bvh, or SUBJECT_TRIAL.amc with a skeleton SUBJECT.asf, in upper or lower
case. A skeleton may be in another folder, or be the only one in the folder of trials with other names, and then names
their subject. All files are read and checked before anything is written; each error is one line with file and line
number. All trials must have the same joints and angles.

Every k-th frame of a recording is kept, as described in `motion_features`. Angles that are constant in the training set
are left out, since their density would be unbounded. With at least MANY_SUBJECTS subjects, a tenth of them each is held
out for validation and test; with fewer, a tenth of the trials. motion.json, beside the sets, holds what figures need to
turn frames back into bodies.
"""

import argparse
import functools
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from asf_amc import read_amc, read_asf
from bvh import read_bvh
from motion_features import ROOT, encode
from skeleton import Skeleton

from speechlvm.bin.cli import make_parser, positive, run_main
from speechlvm.data.corpora.preparation import corpus_files, prepare_sets, shuffled, stamp
from speechlvm.data.kaldi.directory import DataDirectory
from speechlvm.data.kaldi.matrices import write_vectors
from speechlvm.data.log import Log
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.files import hash_file, mark_undone, write_array, write_json

SETS = ("train", "valid", "test")
MANY_SUBJECTS = 10
HELD_OUT_SHARE = 0.1
LEAST_FRAMES = 2
MOVING_DEGREES = 0.01
SAME_BONES = 0.01  # of the longest, by which a subject's bones may differ between files
RATE_TOLERANCE = 0.021  # frame times are written with as few as three decimals: 0.033 and 0.017 are 30 and 60 Hz


@dataclass
class Trial:
    """A recording, and what was read from it.

    Attributes:
        name: SUBJECT_TRIAL in lower case, in the letters of ids.
        path: of the AMC or BVH file.
        asf: its skeleton's file; None for BVH.
        skeleton: None until it is read.
        frames: that its motion gives.
        lowest: (C,) of each channel.
        highest: (C,) of each channel.
        mean: (C,) of each channel.
        log: what is wrong with it.
    """

    name: str
    path: Path
    asf: Path | None
    skeleton: Skeleton | None = None
    frames: int = 0
    lowest: np.ndarray | None = None
    highest: np.ndarray | None = None
    mean: np.ndarray | None = None
    log: Log = field(default_factory=Log)

    @property
    def subject(self) -> str:
        """Id of whoever moves."""
        return self.name.partition("_")[0]


def find_trials(root: Path, log: Log) -> list[Trial]:
    """All trials below a directory, sorted by name.

    Raises:
        UserError: no such directory, or no trials in it; says what was looked for.
    """
    if not root.is_dir():
        raise UserError(
            f"{root}: no such directory; give the one that holds the motion capture files (subjects/01 ...)"
        )
    trials: dict[str, Trial] = {}
    files = sorted(corpus_files(log, root))
    skeletons = [path for path in files if path.suffix.lower() == ".asf"]
    used: set[Path] = set()
    for path in files:
        kind = path.suffix.lower()
        if kind == ".asf":
            continue
        if kind not in (".amc", ".bvh"):
            log.tolerate("files are none of .asf, .amc and .bvh and were left out", str(path))
            continue
        asf = find_skeleton(path, skeletons) if kind == ".amc" else None
        if kind == ".amc" and asf is None:
            log.error(
                f"{path}: no skeleton {path.stem.partition('_')[0]}.asf beside it (nor one elsewhere, nor a single one "
                "of another name beside it); copy it from the corpus, or remove the trial"
            )
            continue
        subject = asf.stem if asf else path.stem.partition("_")[0]
        if asf and not _belongs(path, asf):
            log.tolerate("trials are not named after a skeleton; the only one in their folder is used", str(path))
        elif not asf and subject == path.stem:
            log.tolerate("trials have no '_' in their names (SUBJECT_TRIAL); each is a separate subject", str(path))
        name = trial_name(subject, path.stem)
        if not name:
            log.error(f"{path}: no letter a to z and no digit in its name; rename it, e.g. 02_01{kind}")
            continue
        used.add(asf)
        if name not in trials:
            trials[name] = Trial(name, path, asf)
        elif _same(trials[name], path, asf):
            log.tolerate("trials are identical copies", str(path))
        else:
            log.error(
                f"{path}: another recording than {trials[name].path}, of the same name; rename or remove one of the two"
            )
    for asf in sorted(set(skeletons) - used):
        log.tolerate("skeletons have no trial", str(asf))
    if not trials:
        log.error(f"{root}: no trials; looked through {len(files)} files for SUBJECT_TRIAL.amc and SUBJECT_TRIAL.bvh")
        log.report()
    return [trials[name] for name in sorted(trials)]


def find_skeleton(trial: Path, skeletons: list[Path]) -> Path | None:
    """The skeleton after which a trial is named, in its folder or any other; else the only one in its folder."""
    beside = [asf for asf in skeletons if asf.parent == trial.parent]
    for candidates in (beside, skeletons):
        named = [asf for asf in candidates if _belongs(trial, asf)]
        longest = max((len(asf.stem) for asf in named), default=0)
        named = [asf for asf in named if len(asf.stem) == longest]
        if named:
            return named[0] if len({hash_file(asf) for asf in named}) == 1 else None
    return beside[0] if len(beside) == 1 else None


def _belongs(trial: Path, asf: Path) -> bool:
    """Whether a trial is named after a skeleton: 02_01 after 02, but not after 0."""
    rest = trial.stem.lower().removeprefix(asf.stem.lower())
    return rest != trial.stem.lower() and not rest[:1].isalnum()


def trial_name(subject: str, stem: str) -> str:
    """SUBJECT_TRIAL of a file's name, in lower case, with the only "_" of the subject behind it."""
    first = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")
    rest = re.sub(r"[^a-z0-9_-]+", "_", stem.lower().removeprefix(subject.lower())).strip("_-")
    return "_".join(filter(None, (first, rest)))


def _same(trial: Trial, path: Path, asf: Path | None) -> bool:
    pairs = [(trial.path, path), *([(trial.asf, asf)] if trial.asf and asf else [])]
    return trial.path.suffix.lower() == path.suffix.lower() and all(hash_file(a) == hash_file(b) for a, b in pairs)


def frames_apart(what: str, recorded_hz: float, rate_hz: float) -> int:
    """Every how many frames one is kept.

    Raises:
        UserError: the rates do not divide.
    """
    every = round(recorded_hz / rate_hz)
    if every < 1 or abs(every * rate_hz / recorded_hz - 1) > RATE_TOLERANCE:
        raise UserError(
            f"{what}: recorded at {recorded_hz:g} Hz, which is not a multiple of {rate_hz:g} Hz; "
            f"give --rate_hz {recorded_hz / max(1, every):g}, for instance"
        )
    return every


def read_trial(trial: Trial, rate_hz: float, amc_rate_hz: float) -> tuple[Trial, np.ndarray | None]:
    """The trial with what was read and checked, and its frames; None if something is wrong with it."""
    try:
        if trial.asf:
            asf = read_asf(trial.asf)
            trial.skeleton, motion = asf.skeleton, read_amc(trial.path, asf)
        else:
            file = read_bvh(trial.path)
            trial.skeleton, motion = file.skeleton, file.motion
            for oddity in file.oddities:
                trial.log.tolerate(oddity, trial.name)
        recorded_hz = motion.rate_hz or amc_rate_hz
        every = frames_apart(str(trial.path), recorded_hz, rate_hz)
    except UserError as error:
        trial.log.error(str(error))
        return trial, None
    values = encode(motion, every)
    trial.frames = len(values)
    if trial.frames < LEAST_FRAMES:
        trial.log.error(
            f"{trial.path}: {len(motion.position)} frames at {recorded_hz:g} Hz give {trial.frames} at {rate_hz:g} Hz; "
            f"expected at least {LEAST_FRAMES}; remove it"
        )
        return trial, None
    trial.lowest, trial.highest, trial.mean = values.min(0), values.max(0), values.mean(0)
    return trial, values


def check_skeletons(trials: list[Trial], log: Log) -> None:
    """Checks that all trials have the angles that most have."""
    kinds = Counter(tuple(trial.skeleton.angles) for trial in trials)
    usual = kinds.most_common(1)[0][0]
    for trial in trials:
        own = trial.skeleton.angles
        if tuple(own) != usual:
            lacks, adds = [a for a in usual if a not in own], [a for a in own if a not in usual]
            what = "; ".join(
                f"{verb} {' '.join(names[:5])}" for verb, names in (("lacks", lacks), ("has", adds)) if names
            )
            log.error(
                f"{trial.asf or trial.path}: other angles than {kinds[usual]} of {len(trials)} trials "
                f"({what or 'in another order'}), in trial {trial.name}; remove it, or prepare it by itself"
            )


def find_bodies(trials: list[Trial], log: Log) -> dict[str, Skeleton]:
    """The skeleton of each subject's first trial, used for drawing; different ones are counted."""
    bodies: dict[str, Skeleton] = {}
    for trial in trials:
        body = bodies.setdefault(trial.subject, trial.skeleton)
        first, own = (np.array([joint.offset for joint in one.joints[1:]]) for one in (body, trial.skeleton))
        if own.shape != first.shape or abs(own - first).max() > SAME_BONES * abs(first).max():
            log.tolerate("trials have other bones than their subject's first trial, whose are drawn", trial.name)
    return bodies


def divide(trials: list[Trial], seed: int) -> dict[str, list[Trial]]:
    """Trials of each set: by subject if there are many, else by trial; a tenth each for valid and test.

    Raises:
        ConfigError: there are too few trials for three sets.
    """
    subjects = {trial.subject for trial in trials}
    by_subject = len(subjects) >= MANY_SUBJECTS
    groups = shuffled(subjects if by_subject else {trial.name for trial in trials}, seed)
    held_out = max(1, round(HELD_OUT_SHARE * len(groups)))
    if len(groups) < 3:
        raise ConfigError(f"{len(groups)} trials; expected at least 3, one for each of {', '.join(SETS)}")
    how = (
        "subject" if by_subject else f"trial (by subject from {MANY_SUBJECTS} subjects on), so sets may share subjects"
    )
    print(f"{len(trials)} trials of {len(subjects)} subjects, {held_out} each for valid and test; divided by {how}")
    place = {group: "test" if rank < held_out else "valid" for rank, group in enumerate(groups[: 2 * held_out])}
    sets: dict[str, list[Trial]] = {name: [] for name in SETS}
    for trial in trials:
        sets[place.get(trial.subject if by_subject else trial.name, "train")].append(trial)
    return sets


def choose_channels(sets: dict[str, list[Trial]], names: list[str], log: Log) -> dict[str, float]:
    """Channels that do not move in the training set, with their value."""

    def moves(trials: list[Trial]) -> np.ndarray:
        lowest = np.min([trial.lowest for trial in trials], axis=0)
        return np.max([trial.highest for trial in trials], axis=0) - lowest > least

    least = np.where(np.arange(len(names)) < len(ROOT), 0.0, MOVING_DEGREES)
    moving = moves(sets["train"])
    weights = [trial.frames for trial in sets["train"]]
    values = np.average([trial.mean for trial in sets["train"]], axis=0, weights=weights)
    still = {name: float(value) for name, value, kept in zip(names, values, moving, strict=True) if not kept}
    if still:
        print(f"{len(still)} of {len(names)} channels left out, as they do not move in train: {' '.join(still)}")
    for other in ("valid", "test"):
        for name, kept, also in zip(names, moving, moves(sets[other]), strict=True):
            if also and not kept:
                log.tolerate("channels are constant only in train and were left out", f"{name} ({other})")
    return still


def make_sets(trials: list[Trial], log: Log, arguments: argparse.Namespace) -> dict[str, DataDirectory]:
    """Reads all trials, in `nj` processes, and writes their frames; the sets.

    Raises:
        UserError: there are errors.
    """
    work = arguments.out / ".frames"
    read = functools.partial(_read_to_file, work=work, rate_hz=arguments.rate_hz, amc_rate_hz=arguments.amc_rate_hz)
    work.mkdir(parents=True, exist_ok=True)
    try:
        trials = _read_all(read, trials, arguments.nj)
        for trial in trials:
            log.add(trial.log)
        log.report()
        check_skeletons(trials, log)
        bodies = find_bodies(trials, log)
        log.report()
        sets = divide(trials, arguments.seed)
        names = [*ROOT, *trials[0].skeleton.angles]
        still = choose_channels(sets, names, log)
        kept = np.array([name not in still for name in names])
        data = {}
        for name, members in sets.items():
            frames = ((trial.name, np.load(work / f"{trial.name}.npy")[:, kept]) for trial in members)
            feats, num_frames = write_vectors(arguments.out / "frames", name, frames)
            data[name] = DataDirectory(
                {trial.name: trial.subject for trial in members},
                feats=feats,
                num_frames=num_frames,
                channels={name: "real" for name in names if name not in still},
                rate_hz=arguments.rate_hz,
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    skeletons = {subject: [asdict(joint) for joint in body.joints] for subject, body in bodies.items()}
    # what turns frames into bodies again
    write_json(arguments.out / "motion.json", {"channels": names, "left_out": still, "skeletons": skeletons})
    return data


def _read_all(read: Callable[[Trial], Trial], trials: list[Trial], jobs: int) -> list[Trial]:
    """Reads trials in processes of their own, since parsing text is Python's own work, one thread at a time."""
    if jobs == 1:
        return list(map(read, trials))
    with ProcessPoolExecutor(jobs, initializer=_leave_signals) as pool:
        try:
            return list(pool.map(read, trials, chunksize=4))
        except BrokenProcessPool:
            raise UserError("a process that reads trials was killed (out of memory?); try a smaller --nj") from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave_signals() -> None:
    # the parent handles interrupts, and ends its children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_to_file(trial: Trial, work: Path, rate_hz: float, amc_rate_hz: float) -> Trial:
    trial, values = read_trial(trial, rate_hz, amc_rate_hz)
    if values is not None:
        write_array(work / f"{trial.name}.npy", values.astype(np.float32))
    return trial


def prepare(arguments: argparse.Namespace) -> None:
    """Reads the corpus, checks it, divides it and writes the data directories."""
    log = Log()
    trials = find_trials(arguments.corpus, log)
    if any(trial.asf for trial in trials):
        # once instead of for each trial
        frames_apart("AMC files (--amc_rate_hz)", arguments.amc_rate_hz, arguments.rate_hz)
    inputs = {
        "options": {name: getattr(arguments, name) for name in ("rate_hz", "amc_rate_hz", "seed")},
        "corpus": stamp(file for trial in trials for file in (trial.path, trial.asf) if file),
    }
    if not (arguments.out / "motion.json").exists():
        mark_undone(arguments.out)
    prepare_sets(arguments.out, inputs, SETS, lambda: make_sets(trials, log, arguments), arguments.rate_hz, log)


def main(argv: list[str] | None = None) -> int:
    """Parses the command line and prepares the corpus."""
    parser = make_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory with the files, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="output directory of train/, valid/ and test/")
    parser.add_argument(
        "--rate_hz", type=positive(float), default=30, help="frame rate after decimation; must divide the original rate"
    )
    parser.add_argument(
        "--amc_rate_hz", type=positive(float), default=120, help="frame rate of AMC files that do not state it"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the split")
    parser.add_argument("--nj", type=positive(int), default=1, help="number of processes")
    prepare(parser.parse_args(argv))
    return 0


if __name__ == "__main__":
    run_main(main)
