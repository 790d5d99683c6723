"""Each file operation of a checkpoint, a dump and a data directory fails in each way: what is there is old or new."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from faults import results
from faults.campaign import Campaign
from faults.hooks.file_operations import ACTIONS, Operations

SMALL = 12  # faults of each part in a sample


def run(campaign: Campaign) -> None:
    """Every operation of every part, in every way; a sample of them if the campaign is small."""
    for part in (DataDirectory, Dump, DumpAgain, Checkpoint, CheckpointAgain):  # those that need torch last
        directory = campaign.directory / "operations" / part.__name__
        directory.mkdir(parents=True)
        _fail_each(campaign, part(directory))


def _fail_each(campaign: Campaign, part: Part) -> None:
    part.reset()
    part.before = results.digests(part.work)
    names = _names_of_operations(part)
    part.after = results.digests(part.work)
    campaign.note(f"operations: {part.name}: {len(names)} file operations, {len(ACTIONS)} ways to fail each")
    faults = [(number, action) for number in range(1, len(names) + 1) for action in ACTIONS]
    if campaign.small:
        faults = faults[:: max(1, len(faults) // SMALL)]
    for number, action in faults:
        if campaign.late():
            campaign.note(f"operations: {part.name}: the time was over at operation {number} of {len(names)}")
            return
        part.reset()
        status = _in_child(part, number, action)
        found = part.faults(status)
        again = _in_child(part, 0, "")
        if again != 0:
            found.append(f"done again: status {again}")
        found += [f"done again: {line}" for line in results.differences(part.after, part.work)]
        where = f"operation {number} ({names[number - 1]}), {action}"
        campaign.count("operations", f"{part.name}: {action}", [f"{where}: {line}" for line in found])


def _in_child(part: Part, number: int, action: str) -> int:
    """Exit status of a process of its own that works on a part; negative: of the signal that killed it."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.dup2(os.open(part.directory / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            signal.alarm(60)
            Operations(part.work, number, action).install()
            status = part.perform()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _names_of_operations(part: Part) -> list[str]:
    names = part.directory / "names"
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            operations = Operations(part.work, 0, "")
            operations.install()
            part.perform()
            names.write_text("\n".join(operations.names))
        os._exit(0)
    os.waitpid(child, 0)
    return names.read_text().split("\n")


class Part(ABC):
    """Something that is written.

    Attributes:
        name: for the table.
        work: what is written lies in it.
        before, after: digests of what is there at first, and when all has gone well.
    """

    name: str
    before: dict[str, str]
    after: dict[str, str]

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.work = directory / "work"
        self.first = directory / "first"  # what `work` is at first
        self.make()

    @abstractmethod
    def make(self) -> None:
        """Fill `first`."""

    @abstractmethod
    def perform(self) -> int:
        """Write; returns an exit status."""

    def reset(self) -> None:
        """`work` as at first."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.first, self.work)

    def faults(self, status: int) -> list[str]:
        """What is wrong after a failure."""
        found = results.partial(self.work, self.before, self.after)
        if status not in (0, 1, -signal.SIGKILL):
            found.append(f"status {status}: {(self.directory / 'output').read_text()[-500:]!r}")
        if status == 0:
            found += [f"status 0, and {line}" for line in results.differences(self.after, self.work)]
        return found


def _exit_status(main, *words) -> int:
    """Of a program in this process."""
    from speechlvm.bin.cli import run_main

    try:
        run_main(lambda: main([str(word) for word in words]))
    except SystemExit as end:
        return end.code


class Checkpoint(Part):
    """The third checkpoint of a training, which is the best so far; the first goes."""

    name = "checkpoint"
    steps, fewest = (10, 20), 2
    saved, marked = 30, True

    def make(self) -> None:
        for step in self.steps:
            self._save(self.first, step, "old", self.marked)

    def _save(self, directory: Path, step: int, age: str, marked: bool = True) -> None:
        from speechlvm.experiment.checkpoint import Checkpoints

        checkpoints = Checkpoints(directory / "exp" / "checkpoints")
        checkpoints.save(step, self._content(step, age))
        if marked:
            checkpoints.mark_best(step, -float(step))
        checkpoints.prune()

    def _content(self, step: int, age: str) -> dict:
        import torch

        weight = torch.full((64, 64), float(step))
        return {"model": {"weight": weight}, "progress": {"step": step, "age": age}}

    def perform(self) -> int:
        return _exit_status(lambda _: self._save(self.work, self.saved, "new"))

    def faults(self, status: int) -> list[str]:
        """The loader finds the old or the new state, and two checkpoints are whole."""
        from speechlvm.experiment.checkpoint import Checkpoints

        found = super().faults(status)
        checkpoints = Checkpoints(self.work / "exp" / "checkpoints")
        try:
            best = [checkpoints.load_best()] if self.marked or checkpoints.best_step() is not None else []
            for loaded in (checkpoints.load_latest(), *best):
                step = loaded["progress"]["step"]
                if step not in (20, self.saved) or not (loaded["model"]["weight"] == float(step)).all():
                    found.append(f"loaded: step {step}")
            whole = [checkpoints.load(step) for step in checkpoints.steps()]
            if len(whole) < self.fewest:
                found.append(f"{len(whole)} checkpoints are left")
        except Exception as error:
            found.append(f"the loader fails: {error!r}")
        return found


class CheckpointAgain(Checkpoint):
    """The only checkpoint of a training, saved again and marked: first its validation was interrupted."""

    name = "checkpoint over itself"
    steps, fewest = (20,), 1
    saved, marked = 20, False


class Dump(Part):
    """A dump of three utterances."""

    name = "dump"
    recordings = 3

    def make(self) -> None:
        self.first.mkdir()
        self._data("data", self.recordings)

    def _data(self, name: str, recordings: int) -> None:
        from speechlvm.data.audio import write_wav
        from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir

        wav, lengths = {}, {}
        for number in range(recordings):
            samples = np.random.default_rng(number).integers(-99, 99, 500 + number).astype(np.int16)
            wav[f"u{number}"], lengths[f"u{number}"] = self.directory / f"u{number}.wav", len(samples)
            write_wav(wav[f"u{number}"], samples, 16000)
        data = DataDirectory(dict(zip(wav, wav, strict=True)), wav=wav, num_samples=lengths)
        write_data_dir(data, self.directory / name)

    def perform(self) -> int:
        return self._dump("data", self.work)

    def _dump(self, data: str, place: Path) -> int:
        from speechlvm.bin import dump

        return _exit_status(dump.main, "--data", self.directory / data, "--out", place / "dump")

    def faults(self, status: int) -> list[str]:
        """Where done.json says that a dump is complete, it is, and of one run."""
        found = super().faults(status)
        if (self.work / "dump" / "done.json").exists():
            lines = [results.differences(state, self.work) for state in (self.before, self.after)]
            lines = [[line for line in state if not line.endswith("left behind")] for state in lines]
            if all(lines):
                found.append(f"done.json is there, and {lines[1][0]}")
        return found


class DumpAgain(Dump):
    """A dump that replaces one of fewer utterances."""

    name = "dump over another"

    def make(self) -> None:
        super().make()
        self._data("less", self.recordings - 1)
        self._dump("less", self.first)


class DataDirectory(Part):
    """A data directory that replaces another one."""

    name = "data directory"

    def make(self) -> None:
        self._write(self.first, 2)

    def _write(self, place: Path, utterances: int) -> None:
        from speechlvm.data.kaldi.directory import DataDirectory, write_data_dir

        names = [f"u{number}" for number in range(utterances)]
        data = DataDirectory(
            dict.fromkeys(names, "u"), wav={u: Path("/") / u for u in names}, num_samples=dict.fromkeys(names, 5)
        )
        write_data_dir(data, place / "data")

    def perform(self) -> int:
        from speechlvm.utils.files import mark_done, mark_undone

        def main(_: list[str]) -> None:
            mark_undone(self.work)
            self._write(self.work, 3)
            mark_done(self.work, {})

        return _exit_status(main)
