"""HTML that is safe from injection: text is escaped unless this module made it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

from speechlvm.reporting.formats import Column

VOID = ("meta", "img", "link", "br", "hr", "input")


class Markup(str):
    """Text that is HTML already, made by `element` and what is built of it."""


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element with its children.

    Args:
        tag: its name.
        children: `Markup` stays as it is, other values are escaped text, iterables are joined, None is nothing.
        attributes: names end in an underscore where Python has the word (`class_`) and have others for hyphens; True is
            an attribute without a value, None and False are none.
    """
    parts = [tag]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f'{key}="{escape(str(value), quote=True)}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if tag in VOID else f"{start}{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Markup:
    """Children one after the other, as `element` takes them."""
    texts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            texts.append(child)
        elif isinstance(child, Iterable) and not isinstance(child, str):
            texts.append(join(child))
        else:
            texts.append(escape(str(child), quote=False))
    return Markup("".join(texts))


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], caption: str) -> Markup:
    """A table whose first column heads its rows, in a frame of its own that scrolls where the window is narrow."""
    groups = [(group, len(list(members))) for group, members in groupby(columns, key=lambda column: column.group)]
    above = [
        element("th", group, colspan=width, scope="colgroup") if group else element("td", colspan=width)
        for group, width in groups
    ]
    heads = [element("th", column.name, scope="col", class_=_aligned(column)) for column in columns]
    body = [element("tr", element("th", first, scope="row"), map(_cell, cells, columns[1:])) for first, *cells in rows]
    head = element("thead", element("tr", above) if any(group for group, _ in groups) else None, element("tr", heads))
    grid = element("table", element("caption", caption), head, element("tbody", body))
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(text: str, column: Column) -> Markup:
    return element("td", text, class_=_aligned(column))


def _aligned(column: Column) -> str | None:
    return "number" if column.number else None


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as an address that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which a page loads nothing and runs nothing but this style and this script."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)
    ]
    return (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    )
