"""How memory and time of preparation, dumping, training and scoring scale with hours of audio and number of jobs.

From the recipe's directory, after ``. ./path.sh``:

    python benchmark/scale.py --work DIR --hours 1 10 100      # an hour takes 0.4 GB in DIR, which is left empty
    python benchmark/scale.py --work DIR --hours 1 --nj 1 2 --repeats 3

The audio is synthetic: chapters of six minutes of noise at 22 050 Hz. Each line is one process, with its peak
resident memory; with several jobs, the largest of theirs, and the time until the last has ended. A process has one
thread, as jobs that share a machine.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ, CHAPTER_SECONDS = 22050, 360
SMALL = {
    "limits.steps": 2,
    "model_conf.hidden": 64,
    "data.batch_frames": 256000,
    "validation.every_steps": 2,
    "validation.utterances": 64,
}


def make_corpus(directory: Path, hours: float) -> None:
    """Chapters of noise; no two have the same samples."""
    noise = np.random.default_rng(0).standard_normal(RATE_HZ * 60) * 2000
    chapters = max(3, round(hours * 3600 / CHAPTER_SECONDS))
    minutes = round(hours * 60 / chapters)
    for chapter in range(chapters):
        path = directory / f"book{chapter % 10}" / f"chapter{chapter:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
            for minute in range(minutes):
                file.write(np.roll(noise, 1000 * chapter + minute).astype(np.int16))


def measure(commands: list[list[str]]) -> tuple[float, float]:
    """Runs commands side by side: seconds until all have ended, and the largest peak of resident memory, in MB."""
    began, peaks = time.monotonic(), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) for command in commands]
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peaks.append(usage.ru_maxrss / 1000)
    if any(process.returncode for process in running):
        raise SystemExit(f"error: failed: {' '.join(commands[0])}")
    return time.monotonic() - began, max(peaks)


def steps(work: Path, jobs: int) -> dict[str, list[list[list[str]]]]:
    """The commands of each step: those of a list run side by side, lists one after another."""
    data, dump, exp = work / "data", work / "dump", work / "exp"

    def program(name: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", f"speechlvm.bin.{name}", *map(str, arguments)]

    def sharded(*words: object) -> list[list[list[str]]]:
        command = program(*words, "--nj", jobs)
        return [[[*command, "--job", str(job)] for job in range(1, jobs + 1)], [[*command, "--merge"]]]

    def dumped(name: str) -> list[list[list[str]]]:
        return sharded("dump", "--data", data / name, "--out", dump / name, "--segment_frames", 8000)

    train = ["--train", dump / "train"]
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    return {
        "prepare": [
            [[sys.executable, "local/prepare.py", "--corpus", work / "corpus", "--out", data, "--jobs", str(jobs)]]
        ],
        "validate": [[program("validate_data_dir", data / "train")]],
        "dump": dumped("train"),
        "dump (valid)": dumped("valid"),
        "score uniform": sharded(
            "baseline", "--name", "uniform", *train, "--dump", dump / "train", "--out", work / "uniform"
        ),
        "train, 2 steps": [
            [program("train", "--config", "conf/lstm_s200_d2048_l1_normal.yaml", *train, "--valid", dump / "valid",
                     "--out", exp, "--seed", 1, *small)]
        ],
        "score LSTM": sharded("score", "--exp", exp, "--dump", dump / "train", "--out", work / "score"),
    }  # fmt: skip


def main() -> None:
    """Measures and prints; removes what it made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a directory that is made and removed")
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--nj", type=int, nargs="+", default=[1], help="numbers of jobs")
    parser.add_argument("--repeats", type=int, default=1, help="the median of so many runs is printed")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True)
    print("| hours | jobs | step | seconds | peak memory of a job [MB] | of joining [MB] |")
    print("|-------|------|------|---------|---------------------------|-----------------|", flush=True)
    try:
        for hours in arguments.hours:
            make_corpus(arguments.work / "corpus", hours)
            for jobs in arguments.nj:
                runs: dict[str, list[list[tuple[float, float]]]] = {}
                for _ in range(arguments.repeats):
                    for name, commands in steps(arguments.work, jobs).items():
                        runs.setdefault(name, []).append([measure(side_by_side) for side_by_side in commands])
                        report(hours, jobs, name, runs[name], arguments.repeats)
                    for made in ("data", "dump", "exp", "uniform", "score"):
                        shutil.rmtree(arguments.work / made)
            shutil.rmtree(arguments.work / "corpus")
    finally:
        shutil.rmtree(arguments.work)


def report(hours: float, jobs: int, name: str, runs: list[list[tuple[float, float]]], repeats: int) -> None:
    """Prints a line once all runs of a step have been made."""
    if len(runs) == repeats:
        seconds = statistics.median(sum(part[0] for part in run) for run in runs)
        peaks = [f"{max(run[place][1] for run in runs):.0f}" for place in range(len(runs[0]))]
        print(f"| {hours:g} | {jobs} | {name} | {seconds:.1f} | {' | '.join([*peaks, ''][:2])} |", flush=True)


if __name__ == "__main__":
    main()
