"""JSON files that stages write for later stages, validated when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from speechlvm.utils.errors import UserError
from speechlvm.utils.files import read_json


class Record(BaseModel):
    """A mapping in such a file; unknown keys are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def read_record(path: Path, kind: Any, remedy: str) -> Any:
    """Read and validate a JSON file.

    Args:
        path: the file.
        kind: type of its contents: a `Record`, or another type that pydantic validates.
        remedy: what to do if the file cannot be used; the end of the message.

    Raises:
        UserError: missing, not JSON, or not of this type.
    """
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except UserError as error:
        raise UserError(f"{str(error).split(';')[0]}; {remedy}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where}: {reason[0].lower()}{reason[1:]}; {remedy}") from error
