"""Strict pydantic settings, and the YAML that they are read from."""

from __future__ import annotations

import contextlib
import difflib
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from speechlvm import __version__
from speechlvm.utils.errors import ConfigError, UserError
from speechlvm.utils.text import read_text


class Settings(BaseModel):
    """Settings without unknown keys, implicit conversions, infinite numbers or changes after construction."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


MAX_CONFIG_BYTES = 1 << 20
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*|[0-9]*\.[0-9]*)([eE][-+]?[0-9]{1,3})?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
# Numbers in most languages, but text in YAML 1.1. 1e5 is an integer, so that counts can be written like this.
_EXPONENTS = {
    _INT: re.compile(r"[-+]?[0-9]+[eE]\+?[0-9]{1,2}$"),
    _FLOAT: re.compile(r"[-+]?([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)[eE][-+]?[0-9]+$"),
}


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys, tags, aliases (alias bombs), and numbers that are not decimal."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases are not allowed")
        if event.tag is not None:
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: tags are not allowed, found {event.tag!a}")
        return super().compose_node(parent, index)

    def construct_scalar(self, node):
        # YAML 1.1 reads 010 as 8 and 1:30 as 90
        if node.tag in (_INT, _FLOAT) and not _DECIMAL.fullmatch(node.value):
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {node.value[:99]!r} is not a decimal number")
        text = super().construct_scalar(node)
        return format(Decimal(text), "f") if node.tag == _INT else text

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key {key!r} is not text")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: key '{key}' is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_StrictLoader` would read as numbers."""


for _each in (_StrictLoader, _Dumper):
    for _tag, _pattern in _EXPONENTS.items():
        _each.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


def parse_yaml(text: str, source: str) -> Any:
    """Plain values of a YAML text.

    Raises:
        ConfigError: malformed, duplicate keys, tags, aliases.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error


def format_yaml(value: Any) -> str:
    """Plain values as YAML that `parse_yaml` reads."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: missing, too large, malformed, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():  # a pipe would block
        reason = "not a regular file" if path.exists() else "no such file"
        raise ConfigError(f"{path}: cannot be read ({reason}); give an existing YAML file")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    value = parse_yaml(read_text(path), str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(value).__name__}")
    return value


def validated(settings: type[Settings], value: Any, source: str) -> Any:
    """Build settings from plain values; the first error becomes a one-line message.

    Raises:
        ConfigError: unknown key, wrong type, out of range.
    """
    try:
        return settings.model_validate(value)
    except ValidationError as error:
        # a misspelt key first: it explains why another is missing
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        raise ConfigError("; ".join(_explain(settings, item, source) for item in items[:3])) from error


def _explain(settings: type[Settings], item: dict[str, Any], source: str) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        known = list(_fields_at(settings, item["loc"][:-1]))
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}"
        return f"{source}: {key}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"{source}: {key}: missing; it has no default"
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if item["type"] == "value_error" and isinstance(item["input"], dict):
        return f"{source}: {key}: {message}"
    found = f"{item['input']!r:.200} ({type(item['input']).__name__})"
    return f"{source}: {key}: {message}; found {found}{_hint(item)}"


def _hint(item: dict[str, Any]) -> str:
    """Advice if a string was probably meant as a number."""
    if item["type"].startswith(("int_", "float_")) and isinstance(item["input"], str):
        with contextlib.suppress(ValueError):
            float(item["input"])
            return "; write it without quotation marks"
    return ""


def _fields_at(settings: Any, location: tuple) -> dict[str, Any]:
    for part in location:
        if get_origin(settings) is dict:
            settings = get_args(settings)[1]
            continue
        field = getattr(settings, "model_fields", {}).get(part)
        if field is None:
            return {}
        settings = field.annotation
    return getattr(settings, "model_fields", {})


class NewerFormat(UserError):
    """An intact file that a newer version of this project wrote and this one cannot read."""


def checked(settings: type[Settings], value: Any, source: str) -> Any:
    """Validate values read from a file.

    Raises:
        UserError: not a mapping, an unknown or missing key, a wrong type, or out of range.
    """
    try:
        return validated(settings, value, source)
    except ConfigError as error:
        raise UserError(f"{error}; the file is damaged") from error


def check_format(value: Any, newest: int, source: str) -> None:
    """Check that this version can read the format of a file.

    Args:
        value: contents: "format", and "speechlvm", the version that wrote the file.
        newest: format that this version writes.
        source: the file.

    Raises:
        NewerFormat: newer format; the message names the version to install.
        UserError: no format number.
    """
    number = value.get("format") if isinstance(value, dict) else None
    if type(number) is not int or number < 1:
        raise UserError(f"{source}: not a file of this project (no format number); nothing was loaded")
    if number > newest:
        raise NewerFormat(
            f"{source}: format {number}; speechlvm {__version__} reads up to {newest}; needs speechlvm >= "
            f"{value.get('speechlvm')}"
        )
