"""Dumps: written by stage 2, read by models."""

from __future__ import annotations

from pathlib import Path

from speechlvm.data.dumps.dump import Dump, make_again
from speechlvm.data.dumps.pcm import PCMDump
from speechlvm.data.dumps.vectors import VectorDump
from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json


def open_dump(directory: Path) -> Dump:
    """Opens a dump of the kind given in its info.json.

    Raises:
        UserError: missing or damaged.
    """
    info = read_json(Path(directory) / "info.json")
    readers = {"pcm16": PCMDump, "vectors": VectorDump}
    if not isinstance(info, dict) or not isinstance(info.get("kind"), str):
        raise UserError(f"{directory}/info.json: damaged; {make_again(directory)}")
    if info["kind"] not in readers:
        raise UserError(f"{directory}/info.json: holds '{info['kind']}'; expected a dump that models are trained on")
    try:
        return readers[info["kind"]](directory, info)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{directory}/info.json: damaged ({error!r}); {make_again(directory)}") from error
