"""Checkpoints: complete or absent, loaded without running code.

    checkpoints/step-00001200.pt     tensors and plain values (weights, optimiser, generator, position, history)
    checkpoints/step-00001200.json   its SHA-256 and step; written last: no manifest, no checkpoint
    checkpoints/best.json            which of them scored best on the validation set

A damaged newest checkpoint is passed over, with a warning, in favour of the one before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
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
CONTENT = {
    "model": dict,
    "optimizer": dict,
    "generator": torch.Tensor,
    "observation": dict,
    "progress": dict,
    "frozen": str,
    "provenance": dict,
}


class Mark(Settings):
    """What the JSON beside a checkpoint says, and best.json of one of them.

    Attributes:
        sha256: of the checkpoint.
        step: optimiser steps.
        format: of the checkpoint.
        speechlvm: version that wrote it.
        validation_nats_per_frame: in best.json.
        next_sha256: of the one that takes its place, while that is being written.
    """

    sha256: str
    step: int = Field(ge=0, lt=10**18)
    format: int
    speechlvm: str | None = None
    validation_nats_per_frame: float | None = None
    next_sha256: str | None = None


_NAME = re.compile(r"step-(\d{8,})\.json")
log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one experiment."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def check_space(self, model: torch.nn.Module) -> None:
        """Require space for the checkpoints of a run: weights and two moments of each, of all that are ever there.

        Raises:
            UserError: it is not free.
        """
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        at_once = KEPT + 2  # the best, and the one that is being written
        check_space(self.directory, at_once * 3 * weights, "checkpoints", bytes_in(self.directory))

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def path(self, step: int) -> Path:
        """File of the checkpoint at a step."""
        return self.directory / f"step-{step:08d}.pt"

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write a checkpoint; on failure (disk full, killed) the previous ones are as they were."""
        path = self.path(step)
        self._sweep()
        buffer = io.BytesIO()
        torch.save({**content, "format": FORMAT, "speechlvm": __version__}, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
        mark = Mark(sha256=digest, step=step, format=FORMAT, speechlvm=__version__)
        manifest = path.with_suffix(".json")
        if manifest.exists():  # of this step again, after its validation: at each moment one of both is valid
            mark_there = _read_mark(manifest)
            there = hash_file(path) if path.exists() else ""
            if there != mark_there.next_sha256:  # a kill may have come between the file and its mark
                there = mark_there.sha256
            write_json(manifest, {**read_json(manifest), "sha256": there, "next_sha256": digest})
        write_bytes(path, buffer.getbuffer())
        write_json(manifest, mark.model_dump(exclude_none=True))

    def mark_best(self, step: int, nats_per_frame: float) -> None:
        """Name the checkpoint that later stages use, and what it scored on the validation set."""
        manifest = read_json(self.path(step).with_suffix(".json"))
        best = {**manifest, "validation_nats_per_frame": nats_per_frame}
        path = self.directory / "best.json"
        if not path.exists() or read_json(path) != best:
            write_json(path, best)

    def prune(self) -> None:
        """Keep the newest two and the best."""
        best = self.best_step()
        for step in self.steps()[:-KEPT]:
            if step != best:
                # manifest first: without it the checkpoint does not exist
                self.path(step).with_suffix(".json").unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what is no checkpoint: what a killed process left would fill the disk, kill by kill."""
        for path in self.directory.glob("step-*.pt"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)
        remove_leftovers(self.directory)

    def best_step(self) -> int | None:
        """Step of the best checkpoint, if any validation has been done."""
        path = self.directory / "best.json"
        return _read_mark(path).step if path.exists() else None

    def load(self, step: int) -> dict[str, Any]:
        """The content of one checkpoint.

        Raises:
            UserError: truncated, altered, not a checkpoint, or of a newer format.
        """
        path = self.path(step)
        mark = _read_mark(path.with_suffix(".json"))
        if not path.exists() or hash_file(path) not in (mark.sha256, mark.next_sha256):
            raise UserError(f"{path}: does not match its manifest (truncated or altered); remove both and train again")
        return load_tensors(path)

    def load_latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None if there is none.

        Raises:
            NewerFormat: the newest is for a newer version of this project.
            UserError: there are checkpoints, but none is whole.
        """
        errors = []
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except NewerFormat:
                raise
            except UserError as error:
                log.warning("%s; using the previous one", error)
                errors.append(error)
        if errors:
            raise UserError(f"{self.directory}: no intact checkpoint is left; delete the directory to start over")
        return None

    def load_best(self) -> dict[str, Any]:
        """The checkpoint that scored best on the validation set.

        Raises:
            UserError: no validation has been done yet, or the file is damaged.
        """
        step = self.best_step()
        if step is None:
            raise UserError(f"{self.directory}: no best checkpoint yet; run stage 3 (train) first")
        return self.load(step)


def _read_mark(path: Path) -> Mark:
    value = read_json(path)
    if isinstance(value, dict):
        check_format(value, FORMAT, str(path))
    return checked(Mark, value, str(path))


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors and plain values of a file; objects that could run code are refused.

    Raises:
        UserError: not such a file, or written by a newer version.
    """
    try:
        _insist_plain_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except Exception as error:  # unpicklers of damaged or hostile data raise almost anything
        raise UserError(
            f"{path}: not a checkpoint of this project ({type(error).__name__}); nothing was loaded"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a checkpoint of this project (no format number); nothing was loaded")
    check_format(content, FORMAT, str(path))
    return content


def _insist_plain_archive(path: Path) -> None:
    """Leave torch's readers of older formats out of it, and files that unpack to more than they are."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("packed, or members that overlap")


def check_settings(content: dict[str, Any], config: ExperimentConfig, source: str) -> None:
    """Check that a checkpoint is whole, and was trained with the settings of the configuration beside it.

    Raises:
        UserError: what is missing, or the first section that differs.
    """
    for key, kind in CONTENT.items():
        if not isinstance(content.get(key), kind):
            found = type(content[key]).__name__ if key in content else "nothing"
            raise UserError(f"{source}: a checkpoint has {found} as '{key}', expected {kind.__name__}; use another one")
    try:
        trained, given = dict(json.loads(content["frozen"])), json.loads(json.dumps(config.frozen()))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{source}: a checkpoint's settings are not readable; use another one") from error
    differing = [key for key in sorted(trained.keys() | given.keys()) if trained.get(key) != given.get(key)]
    if differing:
        key = differing[0]
        raise UserError(
            f"{source}: checkpoint of another experiment: {key} was {trained.get(key)!r}, config.yaml says "
            f"{given.get(key)!r}; restore config.yaml, or remove the experiment"
        )


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
    """Load weights all or nothing.

    Raises:
        UserError: another model's weights, or of another size or type (first differing keys named), or not finite.
    """
    own = module.state_dict()
    if not isinstance(weights, dict) or not all(isinstance(key, str) for key in weights):
        raise UserError(f"{source}: weights have no names; nothing was loaded")
    differing = [key for key in sorted(own.keys() | weights.keys()) if not _fits(own.get(key), weights.get(key))]
    if differing:
        shown = ", ".join(_describe(key, own.get(key), weights.get(key)) for key in differing[:3])
        raise UserError(f"{source}: weights of another model: {len(differing)} keys differ, first {shown}")
    broken = [key for key, value in weights.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"{source}: weights are not finite: {', '.join(broken[:3])}; use another checkpoint")
    module.load_state_dict(weights)


def _fits(own: torch.Tensor | None, given: Any) -> bool:
    return own is not None and _described(given) == _described(own)


def _described(value: Any) -> str:
    if value is None:
        return "absent"
    # neither subclasses nor sparse or empty storage, which behave differently from plain tensors
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout != torch.strided or value.is_meta:
        return "no plain tensor"
    return f"{tuple(value.shape)}{'' if value.dtype == torch.float32 else f' {value.dtype}'.replace('torch.', '')}"


def _describe(key: str, own: torch.Tensor | None, given: Any) -> str:
    return f"{key} (model {_described(own)}, file {_described(given)})"
