"""Each file operation of a checkpoint, a dump and a data directory fails in each way: what is there is old or new."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faults import results
from faults.hooks.file_operations import ACTIONS, Operations
from speechlvm.bin import dump
from speechlvm.bin.cli import run_main
from speechlvm.data.audio import write_wav
from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir
from speechlvm.experiment.checkpoint import Checkpoints
from speechlvm.utils.files import mark_done, mark_undone


def in_child(function: Callable[[], None], operations: Operations, output: Path) -> int:
    """Exit status of a process of its own that prints to a file; negative: of the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            sys.stdout = sys.stderr = open(output, "w", buffering=1)  # noqa: SIM115
            signal.alarm(60)
            operations.install()
            run_main(function)
        except SystemExit as end:
            status = end.code
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def save(work: Path, step: int, age: str, validated: bool = True) -> None:
    """A checkpoint of a training, the best so far if it has been validated; of others one stays."""
    import torch

    checkpoints = Checkpoints(work / "exp" / "checkpoints")
    weight = torch.full((64, 64), float(step))
    checkpoints.save(step, {"model": {"weight": weight}, "progress": {"step": step, "age": age}})
    if validated:
        checkpoints.mark_best(step, -float(step))
    checkpoints.prune()


def check_loadable(work: Path, fewest: int) -> None:
    """The loader finds the old or the new state, and so many checkpoints are whole."""
    checkpoints = Checkpoints(work / "exp" / "checkpoints")
    whole = [checkpoints.load(step) for step in checkpoints.steps()]
    assert len(whole) >= fewest
    best = [] if checkpoints.best_step() is None else [checkpoints.load_best()]
    for loaded in (checkpoints.load_latest(), *best):
        step = loaded["progress"]["step"]
        assert step in (20, 30) and (loaded["model"]["weight"] == float(step)).all()


def write_data(place: Path, utterances: int) -> None:
    names = [f"u{number}" for number in range(utterances)]
    wav, lengths = {}, {}
    for number, name in enumerate(names):
        samples = np.random.default_rng(number).integers(-99, 99, 500 + number).astype(np.int16)
        wav[name], lengths[name] = place.parents[1] / f"{name}.wav", len(samples)
        write_wav(wav[name], samples, 16000)
    write_data_dir(DataDirectory(dict(zip(names, names, strict=True)), wav=wav, num_samples=lengths), place)


def write_dump(work: Path, utterances: int) -> None:
    data = work.parent / f"data{utterances}" / "data"
    if not data.exists():
        write_data(data, utterances)
    dump.main(["--data", str(data), "--out", str(work / "dump")])


def write_marked_data(work: Path, utterances: int) -> None:
    mark_undone(work)
    write_data(work / "data", utterances)
    mark_done(work, {})


# What is there at first, and what is written: functions of a directory.
WRITERS = {
    "checkpoint": (lambda work: [save(work, step, "old") for step in (10, 20)], lambda work: save(work, 30, "new")),
    # only one whose validation was interrupted is saved again
    "checkpoint over itself": (lambda work: save(work, 20, "old", validated=False), lambda work: save(work, 20, "new")),
    "dump": (lambda work: None, lambda work: write_dump(work, 3)),
    "dump over another": (lambda work: write_dump(work, 2), lambda work: write_dump(work, 3)),
    "data directory": (lambda work: write_marked_data(work, 2), lambda work: write_marked_data(work, 3)),
}
CHECKPOINTS = {"checkpoint": 2, "checkpoint over itself": 1}  # so many are whole at any time


@pytest.mark.parametrize("ways", [1, pytest.param(len(ACTIONS), marks=pytest.mark.recipe)])
@pytest.mark.parametrize("name", WRITERS)
def test_failing_file_operations_leave_the_old_or_the_new_state(name, ways, tmp_path):
    """Each operation in one way, in turn, or in all."""
    first, write = WRITERS[name]
    work, copy = tmp_path / "work", tmp_path / "copy"
    work.mkdir()
    first(work)
    shutil.copytree(work, copy)
    before = results.digests(work)
    counter, output = tmp_path / "operations", tmp_path / "output"
    assert in_child(lambda: write(work), Operations(work, 0, "", counter), output) == 0
    after = results.digests(work)
    for number in range(1, counter.stat().st_size + 1):
        for action in [ACTIONS[(number + way) % len(ACTIONS)] for way in range(ways)]:
            shutil.rmtree(work)
            shutil.copytree(copy, work)
            status = in_child(lambda: write(work), Operations(work, number, action), output)
            where = f"operation {number}, {action}, status {status}"
            said = output.read_text()
            assert status in (0, 1, -signal.SIGKILL) and "Traceback" not in said, (where, said)
            assert results.partial(work, before, after) == [], where
            if name in CHECKPOINTS:
                check_loadable(work, CHECKPOINTS[name])
            if status == 0:
                assert results.differences(after, work) == [], where
            if name.startswith("dump") and (work / "dump" / "done.json").exists():  # of one run
                states = [results.differences(state, work) for state in (before, after)]
                assert any(all(line.endswith("left behind") for line in state) for state in states), where
            assert in_child(lambda: write(work), Operations(work, 0, ""), output) == 0, where
            assert results.differences(after, work) == [], where


def test_what_is_counted(tmp_path):
    """Each write, fsync, rename and removal below the directory, and nothing elsewhere."""
    inside, names = tmp_path / "inside", tmp_path / "names"
    inside.mkdir()
    child = os.fork()
    if child == 0:
        counted = Operations(inside, 0, "")
        counted.install()
        with open(tmp_path / "outside", "w") as stream:
            stream.write("x")
        with open(inside / "a", "w") as stream:
            stream.write("x")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(inside / "a", inside / "b")
        (inside / "b").unlink()
        (inside / "c").mkdir()
        names.write_text(" ".join(counted.names))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert names.read_text() == "open write fsync replace unlink mkdir"
