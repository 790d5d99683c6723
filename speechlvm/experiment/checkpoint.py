"""Checkpoints: complete or absent, and loaded without running code.

    checkpoints/step-00001200.pt     tensors and plain values (weights, optimiser, generator, position, history)
    checkpoints/best.json            which of them scored best on the validation set

If the newest checkpoint is damaged, training resumes from the one before it, with a warning.
"""

from __future__ import annotations

import io
import json
import logging
import re
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from speechlvm import __version__
from speechlvm.experiment.config import ExperimentConfig
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import bytes_in, check_space, hash_file, read_json, remove_leftovers, write_bytes, write_json
from speechlvm.utils.settings import NewerFormat, Settings, check_format, checked

FORMAT = 1
KEPT = 2
_NAME = re.compile(r"step-(\d{8,})\.pt")
log = logging.getLogger(__name__)


class Best(Settings):
    """Contents of best.json.

    Attributes:
        step: optimiser steps.
        sha256: hash of the checkpoint.
        validation_nats_per_frame: log-likelihood of the validation set.
        format: format of the checkpoint.
        speechlvm: version that wrote it.
    """

    step: int = Field(ge=0, lt=10**18)
    sha256: str
    validation_nats_per_frame: float
    format: int
    speechlvm: str


class Checkpoints:
    """The checkpoints of one experiment."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def check_space(self, model: torch.nn.Module) -> None:
        """Check that there is space for all checkpoints that a run keeps, each with weights and two moments.

        Raises:
            UserError: not enough free space.
        """
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        at_once = KEPT + 3  # the best, the one before a final decay, and the one being written
        check_space(self.directory, at_once * 3 * weights, "checkpoints", bytes_in(self.directory))

    def steps(self) -> list[int]:
        """Steps of the checkpoints, in ascending order."""
        matches = (_NAME.fullmatch(path.name) for path in self.directory.glob("step-*.pt"))
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """Path of the checkpoint of a step."""
        return self.directory / f"step-{step:08d}.pt"

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write a checkpoint; a failure (disk full, killed) leaves the previous ones unchanged."""
        buffer = io.BytesIO()
        torch.save({**content, "format": FORMAT, "speechlvm": __version__}, buffer)
        write_bytes(self.path(step), buffer.getbuffer())

    def mark_best(self, step: int, nats_per_frame: float) -> None:
        """Record the checkpoint that later stages use, and its score on the validation set."""
        best = Best(
            step=step,
            sha256=hash_file(self.path(step)),
            validation_nats_per_frame=nats_per_frame,
            format=FORMAT,
            speechlvm=__version__,
        )
        write_json(self.directory / "best.json", best.model_dump())

    def prune(self, keep: int = -1) -> None:
        """Remove all checkpoints but the newest two and the best, and temporary files of killed processes.

        Args:
            keep: step of another checkpoint to keep.
        """
        kept = (self.best_step(), keep)
        for step in self.steps()[:-KEPT]:
            if step not in kept:
                self.path(step).unlink()
        remove_leftovers(self.directory)

    def remove_after(self, last: int) -> None:
        """Remove the checkpoints after a step, newest first."""
        for step in reversed(self.steps()):
            if step > last:
                self.path(step).unlink()

    def best_step(self) -> int | None:
        """Step of the best checkpoint; None before the first validation."""
        best = self._best()
        return None if best is None else best.step

    def _best(self) -> Best | None:
        path = self.directory / "best.json"
        if not path.exists():
            return None
        value = read_json(path)
        check_format(value, FORMAT, str(path))
        return checked(Best, value, str(path))

    def load(self, step: int) -> dict[str, Any]:
        """The content of one checkpoint; see `load_tensors`."""
        return load_tensors(self.path(step))

    def load_latest(self) -> dict[str, Any] | None:
        """The newest intact checkpoint, or None if there are no checkpoints.

        Raises:
            NewerFormat: the newest was written by a newer version of this project.
            UserError: there are checkpoints, but none is intact.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.load(step)
            except NewerFormat:
                raise
            except UserError as error:
                log.warning("%s; using the previous one", error)
        if steps:
            raise UserError(f"{self.directory}: no intact checkpoint is left; remove it and run stage 3 (train) again")
        return None

    def load_best(self) -> dict[str, Any]:
        """The checkpoint that scored best on the validation set.

        Raises:
            UserError: no validation has been done yet, or the file is damaged.
        """
        best = self._best()
        if best is None:
            raise UserError(f"{self.directory}: no best checkpoint yet; run stage 3 (train) first")
        path = self.path(best.step)
        if hash_file(path) != best.sha256:
            raise UserError(
                f"{path}: does not match best.json (truncated or altered); remove it and run stage 3 (train) again"
            )
        return self.load(best.step)


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors and plain values in a file; objects that could run code are refused.

    Raises:
        NewerFormat: written by a newer version.
        UserError: missing, damaged, or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch ignores checksums
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except Exception as error:  # unpicklers of damaged or hostile data raise almost anything
        raise UserError(
            f"{path}: damaged, or not a checkpoint of this project ({type(error).__name__}); nothing was loaded"
        ) from error
    check_format(content, FORMAT, str(path))
    return content


def check_settings(content: dict[str, Any], config: ExperimentConfig, source: str) -> None:
    """Check that a checkpoint was trained with the settings of the configuration beside it.

    Raises:
        UserError: the first section that differs.
    """
    trained, given = json.loads(content["frozen"]), json.loads(json.dumps(config.frozen()))
    trained["validation"].pop("patience", None)  # recorded when it could not be changed yet
    differing = [key for key in sorted(trained.keys() | given.keys()) if trained.get(key) != given.get(key)]
    if differing:
        key = differing[0]
        raise UserError(
            f"{source}: checkpoint of another experiment: {key} was {trained.get(key)!r}, config.yaml says "
            f"{given.get(key)!r}; restore config.yaml, or remove the experiment"
        )


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load weights into a model.

    Raises:
        UserError: weights of another model or size, or not finite.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{source}: weights of another model: {textwrap.shorten(str(error), 400)}") from error
    broken = [name for name, value in module.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"{source}: weights are not finite: {', '.join(broken[:3])}; use another checkpoint")
