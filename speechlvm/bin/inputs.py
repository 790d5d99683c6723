"""The inputs of programs, dumps, stores and models from earlier stages, and their checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import DONE, check_complete, hash_file


def check_done(*directories: Path) -> None:
    """Check that dumps are complete.

    Raises:
        UserError: one is not, for instance because rewriting it was interrupted.
    """
    for directory in directories:
        check_complete(directory, "not a complete dump; run stage 2 (dumps)")


def fingerprint(store: Path) -> list[str]:
    """A fingerprint of a store of representations, which changes when it is rewritten.

    Raises:
        UserError: the store is not complete.
    """
    check_complete(store, "no complete representations; run stage 6 (latents)")
    return [hash_file(Path(store) / name) for name in ("info.json", DONE)]


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options that name a model: a trained one, or the adaptive reference."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--exp", type=Path, help="experiment directory, or an export")
    model.add_argument("--adaptive", action="store_true", help="use the adaptive reference, which needs no experiment")


def fingerprint_of_model(arguments: argparse.Namespace) -> str:
    """A fingerprint of the model that the options of `add_model` name.

    Raises:
        UserError: it is not trained.
    """
    return "adaptive" if arguments.adaptive else hash_file(check_trained(arguments.exp))


def check_trained(directory: Path) -> Path:
    """Check that an experiment or export has a trained model; returns a file that changes when the model does.

    Raises:
        UserError: it has none.
    """
    for path in (Path(directory) / "checkpoints" / "best.json", Path(directory) / "manifest.json"):
        if path.exists():
            return path
    raise UserError(f"{directory}: no trained model; run stage 3 (train)")
