"""Checks of the inputs of programs: dumps, stores and models from earlier stages."""

from __future__ import annotations

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


def check_trained(directory: Path) -> Path:
    """Check that an experiment or export has a trained model; returns a file that changes when the model does.

    Raises:
        UserError: it has none.
    """
    for path in (Path(directory) / "checkpoints" / "best.json", Path(directory) / "manifest.json"):
        if path.exists():
            return path
    raise UserError(f"{directory}: no trained model; run stage 3 (train)")
