"""One of several training processes, run from the tests' server as `runpy.run_path(<this file>, {"given": {...}})`.

given: rank, size, port, log (file), arguments (of the training program), and what goes wrong (a function below), if
anything does.
"""

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from speechlvm.bin import train as program
from speechlvm.bin.cli import run_main
from speechlvm.experiment import checkpoint as checkpoint_module
from speechlvm.training import distributed
from speechlvm.training import trainer as trainer_module
from speechlvm.training import validation as validation_module
from speechlvm.utils.errors import UserError


def _before_step(number, act):
    original = trainer_module.Trainer._step

    def step(self, batches):
        if self.progress.step + 1 == number:
            act()
        return original(self, batches)

    trainer_module.Trainer._step = step


def _loss_is_nan(rank, step):
    original = trainer_module.objective

    def spoil():
        trainer_module.objective = lambda *arguments: original(*arguments) * (float("nan") if rank == 1 else 1.0)

    _before_step(step, spoil)


def signal_to_the_second(rank):
    """Process 1 gets a signal in step 6."""
    if rank == 1:
        _before_step(6, partial(signal.raise_signal, signal.SIGUSR1))


def nan_on_the_second(rank):
    """The loss of process 1 is not finite in step 7."""
    _loss_is_nan(rank, 7)


def kill_of_the_second(rank):
    """Process 1 is killed in step 6."""
    if rank == 1:
        _before_step(6, partial(os.kill, os.getpid(), signal.SIGKILL))


def stall_of_the_second(rank):
    """Process 1 stands still in step 6 for longer than others wait for its gradients."""
    distributed.GRADIENT_TIMEOUT = timedelta(seconds=5)
    if rank == 1:
        _before_step(6, partial(time.sleep, 15))


def _killed_before(happens):
    """SIGKILL instead of the first rename of a file into place for which happens(its path) is true."""
    original = os.replace

    def replace(source, target):
        if happens(Path(target)):
            os.kill(os.getpid(), signal.SIGKILL)
        original(source, target)

    os.replace = replace


def killed_before_a_checkpoint_is_in_place(rank):
    """Killed when the checkpoint of step 8 is written."""
    _killed_before(lambda target: target.name == "step-00000008.pt")


def killed_before_the_best_is_marked(rank):
    """Killed when the best checkpoint is in place, and best.json does not name it yet."""
    _killed_before(lambda target: target.name == "best.json")


def validation_fails_on_the_second(rank):
    """Process 1 cannot score its utterances."""
    original = validation_module.score_dump

    def fail(*arguments, **options):
        if rank == 1:
            raise UserError("u01: broken")
        return original(*arguments, **options)

    validation_module.score_dump = fail


def signal_while_validating(rank):
    """Process 0 gets a signal while the validation after step 8 goes on."""
    original = validation_module.score_dump

    def score_dump(*arguments, **options):
        for number, score in enumerate(original(*arguments, **options)):
            if number == 0 and rank == 0 and trainer.progress.step == 8:
                signal.raise_signal(signal.SIGTERM)
            yield score

    trainer = None
    construct = trainer_module.Trainer.__init__

    def remember(self, *arguments, **options):
        nonlocal trainer
        trainer = self
        construct(self, *arguments, **options)

    trainer_module.Trainer.__init__ = remember
    validation_module.score_dump = score_dump


def disk_full(rank):
    """No checkpoint can be written."""

    def save(*_):
        raise UserError("disk full")

    checkpoint_module.Checkpoints.save = save


def in_float64(rank):
    """Training in double precision."""
    double = torch.float64
    torch.set_default_dtype(double)
    trainer_module.Noise = partial(trainer_module.Noise, dtype=double)
    construct = trainer_module.Trainer.__init__

    def converted(self, config, model, observation, *rest):
        inputs = observation.inputs
        observation.inputs = lambda data, lengths: inputs(data, lengths).double()
        construct(self, config, model.double(), observation, *rest)

    trainer_module.Trainer.__init__ = converted


def main(given):
    """Do as told, and end with the program's status."""
    rank = given["rank"]
    if given["size"] > 1:
        os.environ.update(
            {
                "RANK": str(rank), "WORLD_SIZE": str(given["size"]), "LOCAL_RANK": str(rank),
                "LOCAL_WORLD_SIZE": str(given["size"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(given["port"]),
                "TORCHELASTIC_RUN_ID": "test",
            }
        )  # fmt: skip
    with open(given["log"], "wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that no server has forked
    if given["wrong"]:
        globals()[given["wrong"]](rank)
    run_main(lambda: program.main(given["arguments"]))


main(given)  # noqa: F821 (put there by whoever runs this file)
