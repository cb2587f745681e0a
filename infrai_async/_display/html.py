"""HTML tables for notebooks, with the contents of a value's repr.

Values come from a service, so all text is escaped. Fields are masked or left out as in the repr. Every function takes a
``footer``, a mapping whose entries are shown below the table unless they are ``None``.
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
_NO_MATHS = 'class="tex2jax_ignore mathjax_ignore"'  # otherwise Jupyter typesets text between dollar signs


def record(value: object, *, footer: Footer = None) -> str:
    """Return an attrs object as a table with a row for each field."""
    return _table(type(value).__name__, ("field", "value"), list(_cells(value).items()), footer=footer)


def table(values: Sequence[object], *, empty: str = "empty", footer: Footer = None) -> str:
    """Return objects as a table with a column for each field, except fields that are ``None`` in all rows shown.

    Classes may be mixed; an object that is not an attrs object has one field, ``value``. ``empty`` is the text for an
    empty sequence.
    """
    shown = values[:_MOST_ROWS]
    cells = [_cells(value) for value in shown]
    fields = _unique(name for row in cells for name in row)
    head = [name for name in fields if any(row.get(name) is not None for row in cells)]
    rows = [[row.get(name) for name in head] for row in cells]
    classes = ", ".join(_unique(type(value).__name__ for value in shown))
    caption = f"{classes} ({len(values)})" if rows else empty
    return _table(caption, head, rows, more=len(values) - len(rows), footer=footer)


def mapping(values: Mapping[str, object], *, empty: str = "empty", footer: Footer = None) -> str:
    """Return a mapping as a table with a row for each key; ``empty`` is the text for an empty mapping."""
    rows = [(key, _text(value)) for key, value in list(values.items())[:_MOST_ROWS]]
    caption = f"{type(values).__name__} ({len(values)})" if rows else empty
    return _table(caption, ("key", "value"), rows, more=len(values) - len(rows), footer=footer)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cells(value: object) -> dict[str, str | None]:
    """Return the text of each field that the repr shows, by field name; ``None`` stays ``None``."""
    cls = type(value)
    if not attrs.has(cls):
        return {"value": _text(value)}
    return {field.name: _field(getattr(value, field.name), field.repr) for field in attrs.fields(cls) if field.repr}


def _field(value: object, shown: bool | Callable[[object], str]) -> str | None:
    return _unquoted(shown(value)) if callable(shown) and value is not None else _text(value)


def _unquoted(shown: str) -> str:
    try:
        text = ast.literal_eval(shown)
    except (SyntaxError, ValueError):  # not every repr is a literal
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
        case Decimal():  # with a huge exponent, the zeros would fill the memory
            return f"{value:f}" if abs(value.adjusted()) < _MOST_CHARACTERS else str(value)
        case tuple():
            return ", ".join(_text(item) or "" for item in value)
        case list() | Mapping() if not attrs.has(type(value)):
            plain = dict(value) if isinstance(value, Mapping) else value
            return json.dumps(plain, ensure_ascii=False, default=_text)
    return repr(value)


def _safe(text: str) -> str:
    """Truncate and escape ``text``; invisible and bidirectional control characters become escape sequences."""
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
    shown = [f"{_safe(name)}: {_safe(text)}" for name, value in footer.items() if (text := _text(value)) is not None]
    return [*([f"… and {more} more"] if more else []), *([" · ".join(shown)] if shown else [])]
