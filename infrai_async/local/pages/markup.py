"""HTML in small pieces: text that is safe whatever it says, and tables whose columns are a line each.

What comes out of a function that returns ``Html`` may be put into a page as it is; everything else is escaped first.
"""

from __future__ import annotations

import hashlib
import html
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, NewType

import attrs

Html = NewType("Html", str)
_MOST: Final = 200
NOTHING: Final = Html('<span class="quiet">&ndash;</span>')


def policy_hash(source: str) -> str:
    """Return what lets just this style or script through a Content-Security-Policy."""
    return f"'sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@attrs.frozen
class Column:
    """A column: its head, what of an item stands below it, and how: aligned to the right, or with room to wrap."""

    head: str
    cell: Callable[[Any], Html]
    kind: Literal["", "number", "long"] = ""


def text(value: object) -> Html:
    """Escape a text: cut where it is endless, with what is invisible or turns its neighbours around spelled out."""
    whole = str(value)
    cut = whole if len(whole) <= _MOST else whole[: _MOST - 1] + "…"
    visible = cut if cut.isprintable() else "".join(map(_visible, cut))
    return Html(html.escape(visible))


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def code(value: object) -> Html:
    """Write an identifier, an address or a line of code."""
    return Html(f"<code>{text(value)}</code>")


def plain(value: object) -> Html:
    """Write a JSON value."""
    return code(json.dumps(value, ensure_ascii=False))


def link(address: str, label: Html, *, current: bool = False) -> Html:
    """Write a link."""
    mark = ' aria-current="page"' if current else ""
    return Html(f'<a href="{html.escape(address)}"{mark}>{label}</a>')


def moment(value: datetime, form: str = "%Y-%m-%d %H:%M") -> Html:
    """Write a time as the clock of this machine shows it."""
    local = value.astimezone()
    return Html(f'<time datetime="{local.isoformat(timespec="milliseconds")}">{local.strftime(form)}</time>')


def created(item: Any) -> Html:
    """Write when something came to be."""
    return moment(datetime.fromisoformat(item["created_at"]))


def dollars(value: Decimal, digits: int = 2) -> Html:
    """Write money to its last digit, and with at least so many."""
    needed = -int(value.normalize().as_tuple().exponent)
    return Html(f"{value:,.{max(digits, needed)}f}")


def size(count: int) -> Html:
    """Write a number of bytes."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return Html(f"{count / step:,.1f} {unit}")
    return Html(f"{count} B")


def share(part: int, whole: int) -> Html:
    """Write a share in percent; of nothing there is none."""
    return Html(f"{part / whole:.1%}") if whole else NOTHING


def count(value: int) -> Html:
    """Write a number of things."""
    return Html(f"{value:,}")


def many(number: int, one: str, several: str) -> Html:
    """Write how many there are of something."""
    return Html(f"{count(number)} {one if number == 1 else several}")


def badge(label: str, kind: str) -> Html:
    """Write a state, whose kind gives it its colour: ``good``, ``bad`` or ``quiet``."""
    return Html(f'<span class="badge {kind}">{text(label)}</span>')


def table(columns: Sequence[Column], groups: Iterable[Sequence[Any]], *, more: str = "") -> Html:
    """Write items as a table whose first column names them; each group is a body of its own."""
    head = "".join(f'<th scope="col"{_kind(column)}>{text(column.head)}</th>' for column in columns)
    bodies = "".join(f"<tbody>{''.join(_row(columns, item) for item in group)}</tbody>" for group in groups)
    foot = f'<tfoot><tr><td colspan="{len(columns)}">{text(more)}</td></tr></tfoot>' if more else ""
    return Html(f"<table><thead><tr>{head}</tr></thead>{bodies}{foot}</table>")


def _row(columns: Sequence[Column], item: Any) -> Html:
    first, *others = columns
    cells = "".join(f"<td{_kind(column)}>{column.cell(item)}</td>" for column in others)
    return Html(f'<tr><th scope="row">{first.cell(item)}</th>{cells}</tr>')


def _kind(column: Column) -> str:
    return f' class="{column.kind}"' if column.kind else ""


def section(id: str, title: str, note: str, body: Html) -> Html:
    """Write a part of the page; what the script replaces of it are its note and its body."""
    return Html(
        f'<section aria-labelledby="{id}"><h2 id="{id}">{text(title)} '
        f'<span class="quiet" id="{id}-note" data-live>{text(note) if note else ""}</span></h2>'
        f'<div class="scroll" id="{id}-body" role="region" aria-labelledby="{id}" tabindex="0" data-live>{body}</div>'
        "</section>"
    )


def empty(words: str, *example: str) -> Html:
    """Write what a section says as long as there is nothing in it: by which lines of code the first comes to be."""
    lines = "\n".join(map(text, example))
    return Html(f'<p class="empty">{text(words)}</p><pre><code>{lines}</code></pre>')
