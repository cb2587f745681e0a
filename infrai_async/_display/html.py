"""HTML tables for notebooks, with the same contents as the repr of a value.

Values come from a service, so all text is escaped. Fields are masked or left out as in the repr; a table of many
objects leaves out secrets such as connection URIs, whose masks would be its widest column and say nothing. Every
function takes a ``footer``, a mapping of names and values to show below the table; values of ``None`` are left out.
"""

from __future__ import annotations

import ast
import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

import attrs

Footer: TypeAlias = Mapping[str, object] | None

_MOST_ROWS = 50
_MOST_CHARACTERS = 200
_LEFT = 'style="text-align: left"'  # Jupyter aligns to the right by default
_CELL = 'style="text-align: left; overflow-wrap: anywhere; min-width: 9em"'  # wide tables wrap instead of scrolling
_NO_MATHS = 'class="tex2jax_ignore mathjax_ignore"'  # Jupyter would typeset text between dollar signs as formulas


def record(value: object, *, footer: Footer = None) -> str:
    """Return an attrs object as a table of its fields and values."""
    return _table(type(value).__name__, ("field", "value"), list(_cells(value).items()), footer=footer)


def table(values: Sequence[object], *, empty: str = "empty", footer: Footer = None) -> str:
    """Return objects as a table with a column for each field, without columns that are ``None`` in all rows shown.

    The objects may be of different classes; an object that is not an attrs instance has a single field. ``empty`` is
    the text for an empty sequence.
    """
    shown = values[:_MOST_ROWS]
    cells = [_cells_of_row(value) for value in shown]
    fields = _unique(name for row in cells for name in row)
    head = [name for name in fields if any(row.get(name) is not None for row in cells)]
    rows = [[row.get(name) for name in head] for row in cells]
    classes = ", ".join(_unique(type(value).__name__ for value in shown))
    caption = f"{classes} ({len(values)})" if rows else empty
    return _table(caption, head, rows, more=len(values) - len(rows), footer=footer)


def mapping(values: Mapping[str, object], *, empty: str = "empty", footer: Footer = None) -> str:
    """Return a mapping as a table of its keys and values; ``empty`` is the text for an empty mapping."""
    rows = [(key, _text(value)) for key, value in list(values.items())[:_MOST_ROWS]]
    caption = f"{type(values).__name__} ({len(values)})" if rows else empty
    return _table(caption, ("key", "value"), rows, more=len(values) - len(rows), footer=footer)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cells(value: object) -> dict[str, str | None]:
    """Return the texts of the fields that the repr shows, by name; the text of ``None`` is ``None``."""
    cls = type(value)
    if not attrs.has(cls):
        return {"value": _text(value)}
    return {field.name: _field(getattr(value, field.name), field.repr) for field in attrs.fields(cls) if field.repr}


def _cells_of_row(value: object) -> dict[str, str | None]:
    """Return the texts of the fields of one object among many, without its secrets."""
    cls = type(value)
    if isinstance(value, tuple):  # a pair of a fan-out
        return {str(number): _text_in_row(item) for number, item in enumerate(value, 1)}
    if not attrs.has(cls):
        return {"value": _text(value)}
    fields = [field for field in attrs.fields(cls) if field.repr is True]
    return {field.name: _text_in_row(getattr(value, field.name)) for field in fields}


def _text_in_row(value: object) -> str | None:
    """Return the text of a field; an object that holds a secret is named by its first field, its id."""
    if isinstance(value, tuple):
        return ", ".join(_text_in_row(item) or "" for item in value)
    if _holds_secret(type(value)):
        return next(iter(_cells_of_row(value).values()))
    return _text(value)


def _holds_secret(cls: type[object]) -> bool:
    return attrs.has(cls) and any(callable(field.repr) for field in attrs.fields(cls))


def _field(value: object, shown: bool | Callable[[object], str]) -> str | None:
    return _unquoted(shown(value)) if callable(shown) and value is not None else _text(value)


def _unquoted(shown: str) -> str:
    try:
        text = ast.literal_eval(shown)
    except (SyntaxError, ValueError):  # the repr is not a literal
        return shown
    return text if isinstance(text, str) else shown


def _text(value: object) -> str | None:
    match value:
        case None | str():
            return value
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
        case Decimal():  # the zeros of a huge exponent would exhaust the memory
            return f"{value:f}" if abs(value.adjusted()) < _MOST_CHARACTERS else str(value)
        case tuple():
            return ", ".join(_text(item) or "" for item in value)
        case list() | Mapping() if not attrs.has(type(value)):
            plain = dict(value) if isinstance(value, Mapping) else value
            return json.dumps(plain, ensure_ascii=False, default=_text)
    return repr(value)


def _safe(text: str) -> str:
    """Truncate and escape ``text``; invisible characters and changes of text direction are spelled out."""
    cut = text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
    return html.escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut))


def _table(
    caption: str, head: Sequence[str], rows: Sequence[Iterable[str | None]], *, more: int = 0, footer: Footer
) -> str:
    notes = [f"<small>{note}</small>" for note in _notes(more, footer or {})]
    if not (rows and head):
        return f"<p {_NO_MATHS}>{'<br/>'.join([_safe(caption), *notes])}</p>"
    foot = "".join(f'<tr><td colspan="{len(head)}" {_LEFT}>{note}</td></tr>' for note in notes)
    return (
        f"<table {_NO_MATHS}><caption {_LEFT}>{_safe(caption)}</caption><thead>{_row('th', head)}</thead>"
        f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody><tfoot>{foot}</tfoot></table>"
    )


def _row(tag: str, texts: Iterable[str | None]) -> str:
    cells = [f"<{tag} {_CELL}>{_safe(text or '')}</{tag}>" for text in texts]
    return f"<tr>{''.join(cells)}</tr>"


def _notes(more: int, footer: Mapping[str, object]) -> list[str]:
    entries = [f"{_safe(name)}: {_safe(text)}" for name, value in footer.items() if (text := _text(value)) is not None]
    return [*([f"… and {more} more"] if more else []), *([" · ".join(entries)] if entries else [])]
