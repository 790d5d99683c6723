"""TERM, INT, USR1 and USR2 in the middle of each kind of work: status 75 at once, nothing partial, a rerun completes.

Training saves first; everything else is interrupted as by Ctrl-C. Programs run in processes forked from this one, so
that torch is loaded once; each signals itself, so that the moment is exact.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults import results
from faults.campaign import Campaign
from faults.hooks.file_operations import Operations
from faults.tiny import ROOT, STEPS, Tiny

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
LIMIT_SECONDS = 30.0
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Case:
    """A program, and the moment at which it is asked to stop.

    Attributes:
        name: of the moment.
        step: of `STEPS`, whose inputs the program needs.
        program: its module.
        words: its arguments; {work}, {root} and {exp} are filled in.
        call: "module:name.name" that is called when the signal comes; empty: a file operation.
        number: which call, from 1; the share of file operations before it, in percent.
    """

    name: str
    step: int
    program: str
    words: str
    call: str
    number: int


def _step(stage: int) -> int:
    return next(i for i, step in enumerate(STEPS) if step.stage == stage and step.recipe == "tiny")


_TRAIN = "--config conf/lstm.yaml --train {dump}/train --valid {dump}/valid --out {work}/exp/train/lstm/seed1 --seed 1"
_CHECKPOINTS = "speechlvm.experiment.checkpoint:Checkpoints"
_SPECTRA = "{work}/exp/train/spectra"
CASES = (
    Case("train step", _step(3), "speechlvm.bin.train", _TRAIN, "speechlvm.training.trainer:Trainer._step", 5),
    Case("dump", _step(2), "speechlvm.bin.dump", "--data {work}/data/train --out {dump}/train", "", 40),
    Case(
        "data preparation", 0, "prepare",
        "--wav_dir {root}/folder --out {work}/wavdir_data --speakers folder --channel mix --bits 16", "", 50,
    ),
    Case("validation", _step(3), "speechlvm.bin.train", _TRAIN, "speechlvm.scoring.score:score_batch", 5),
    Case("during a save", _step(3), "speechlvm.bin.train", _TRAIN, f"{_CHECKPOINTS}.mark_best", 3),
    Case(
        "score", _step(4), "speechlvm.bin.score",
        "--exp {work}/exp/train/lstm/seed1 --dump {dump}/test --out {work}/exp/train/lstm/seed1/score_test",
        "torch.nn:Module.__call__", 7,
    ),
    Case(
        "sample", _step(5), "speechlvm.bin.sample",
        "--exp {work}/exp/train/vrnn/seed1 --dump {dump}/test --out {work}/exp/train/vrnn/seed1/samples --seconds 0.05",
        "", 50,
    ),
    Case(
        "latents", _step(6), "speechlvm.bin.latents",
        "--exp {work}/exp/train/vrnn/seed1 --dump {dump}/train --out {work}/exp/train/vrnn/seed1/latents_train "
        "--latent_samples 2", "", 50,
    ),
    Case(
        "analysis", _step(7), "speechlvm.bin.analyse",
        f"--analysis phones --latents {_SPECTRA}/latents_train --data {{work}}/data/train "
        f"--out {_SPECTRA}/analysis/phones",
        "", 50,
    ),
    Case(
        "probe", _step(8), "speechlvm.bin.probe",
        " ".join(f"--{s} {_SPECTRA}/latents_{s} --{s}_data {{work}}/data/{s}" for s in ("train", "valid", "test"))
        + f" --out {_SPECTRA}/probes --minutes all --steps 3 --hidden 8 --seeds 1 --vocabulary 20",
        "speechlvm.latents.probes.runs:Probing.execute", 3,
    ),
)  # fmt: skip


def run(campaign: Campaign) -> None:
    """Each signal in each case; one of both ways of stopping if the campaign is small."""
    load()
    tiny = campaign.tiny("0")
    slowest = 0.0
    for case in CASES[:2] if campaign.small else CASES:
        tiny.reach(case.step + 1)
        program = _Program(tiny, case)
        for number in SIGNALS[2:3] if campaign.small else SIGNALS:
            if campaign.late():
                campaign.note(f"signals: the time was over before {case.name}")
                return
            slowest = max(slowest, program.interrupt(campaign, number))
    campaign.note(f"signals: the slowest exit took {slowest:.2f} s")


class _Program:
    """A case, and what its program writes undisturbed."""

    def __init__(self, tiny: Tiny, case: Case) -> None:
        self.tiny, self.case = tiny, case
        self.stamp = tiny.root / "signalled"
        tiny.restore(case.step)
        self.before = results.digests(tiny.work)
        self.operations = Operations(tiny.work, 0, "", tiny.counter)
        tiny.counter.unlink(missing_ok=True)
        status, text = self._run(self.operations.install)
        if status != 0:
            raise RuntimeError(f"{case}: status {status}, undisturbed: {text}")
        self.after = results.digests(tiny.work)
        self.count = tiny.counter.stat().st_size

    def interrupt(self, campaign: Campaign, number: signal.Signals) -> float:
        """Signal it, look, and run it again; returns the seconds that it took to end."""
        tiny, case = self.tiny, self.case
        tiny.restore(case.step)
        self.stamp.unlink(missing_ok=True)

        def send() -> None:
            self.stamp.write_text(repr(time.monotonic()))
            os.kill(os.getpid(), number)

        status, text = self._run(lambda: self._prepare(send))
        ended = time.monotonic()
        seconds = ended - float(self.stamp.read_text()) if self.stamp.exists() else 0.0
        faults = [] if status == 75 else [f"status {status}: {text[-500:]!r}"]
        if not self.stamp.exists():
            faults = ["its moment did not come"]
        if seconds > LIMIT_SECONDS:
            faults.append(f"it took {seconds:.0f} s to end")
        faults += results.partial(tiny.work, self.before, self.after)
        again, text = self._run(lambda: None)
        faults += [] if again == 0 else [f"run again: status {again}: {text[-500:]!r}"]
        faults += results.differences(self.after, tiny.work)
        campaign.say(f"{number.name} at {case.name}: {'VIOLATION' if faults else f'ended after {seconds:.2f} s'}")
        campaign.count("signals", case.name, [f"{number.name}: {line}" for line in faults])
        return seconds

    def _prepare(self, send: Callable[[], None]) -> None:
        """In the process that is to be signalled: have the moment come."""
        if not self.case.call:
            Operations(self.tiny.work, max(1, self.count * self.case.number // 100), send).install()
            return
        module, _, names = self.case.call.partition(":")
        *path, last = names.split(".")
        place = importlib.import_module(module)
        for name in path:
            place = getattr(place, name)
        original, calls = getattr(place, last), []

        def call(*arguments, **named):
            calls.append(None)
            if len(calls) == self.case.number:
                send()
            return original(*arguments, **named)

        setattr(place, last, call)

    def _run(self, prepare: Callable[[], None]) -> tuple[int, str]:
        """Exit status and output of the program in a process of its own."""
        output = self.tiny.root / "output"
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
                os.dup2(1, 2)
                status = self._main(prepare)
            finally:
                sys.stdout.flush()
                os._exit(status)
        end = time.monotonic() + PATIENCE_SECONDS
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(ended[1]), output.read_text(encoding="utf-8", errors="replace")

    def _main(self, prepare: Callable[[], None]) -> int:
        from speechlvm.bin.cli import run_main

        work, root = self.tiny.work, self.tiny.root
        os.chdir(root / "egs" / "tiny")
        if self.case.program == "prepare":
            sys.path.insert(0, str(ROOT / "egs" / "wavdir" / "local"))
        main = importlib.import_module(self.case.program).main
        sys.argv = [self.case.program]
        words = [word.format(work=work, root=root, dump=work / "dump" / "pcm16") for word in self.case.words.split()]
        prepare()
        try:
            run_main(lambda: main(words))
        except SystemExit as end:
            return end.code
        return 70


def load() -> None:
    """What forked processes need not load again."""
    import torch

    torch.set_num_threads(1)
    for case in CASES:
        if case.program != "prepare":
            importlib.import_module(case.program)
    for name in ("training.trainer", "experiment", "models", "latents.probes.runs", "sampling.generate"):
        importlib.import_module(f"speechlvm.{name}")
