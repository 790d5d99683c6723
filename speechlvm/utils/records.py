"""JSON files that stages leave for later ones, checked as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json


class Record(BaseModel):
    """A mapping in such a file; keys that the reader does not need are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def read_record(path: Path, kind: Any, remedy: str) -> Any:
    """The contents of a JSON file.

    Args:
        path: of the file.
        kind: what it holds: a `Record`, or another type that pydantic knows.
        remedy: what to do if the file cannot be used; ends the message.

    Raises:
        UserError: missing, not JSON, or something else than `kind`.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except UserError as error:
        raise UserError(f"{str(error).split(';')[0]}; {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise UserError(f"{path}: {where}: {first['msg'].lower()}; {remedy}") from error
