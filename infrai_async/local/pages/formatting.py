"""How the pages write what they show. The templates use each function here as a filter of the same name."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Final

from markupsafe import Markup

from infrai_async.local.http.envelope import NANO

_LONGEST: Final = 200


def readable(value: object) -> str:
    """Return the text to show for a value: cut if it is very long, and with invisible characters spelled out.

    Some of those characters would change how their neighbours look, for instance by reversing them. The templates
    pass every value through this function. What is already escaped stays as it is, so links, which must not be cut,
    are escaped with ``|e`` in the templates.
    """
    if isinstance(value, Markup):
        return value
    text = str(value)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def local_time(value: datetime | str) -> datetime:
    """Return a time, or a text in ISO format, as this machine's clock shows it."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone()


def usd(nano: int) -> Decimal:
    """Return an amount of nano-dollars in dollars."""
    return Decimal(nano) / NANO


def money(amount: Decimal | str, digits: int = 2, separator: str = ",") -> str:
    """Return an amount to its last digit, with no fewer than ``digits`` decimal places."""
    exact = Decimal(amount)
    needed = -int(exact.normalize().as_tuple().exponent)
    return f"{exact:{separator}.{max(digits, needed)}f}"


def number(value: float, digits: int = 0) -> str:
    """Return a number with its thousands separated."""
    return f"{value:,.{digits}f}"


def many(count: int, one: str, several: str) -> str:
    """Return how many there are of something, with the noun that fits."""
    return f"{number(count)} {one if count == 1 else several}"


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that fits."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{number(count / step, 1)} {unit}"
    return f"{count} B"


def share(part: int, whole: int) -> str | None:
    """Return a part of a whole in percent, or ``None`` if the whole is zero."""
    return f"{part / whole:.1%}" if whole else None


def as_json(value: object) -> str:
    """Return a value as JSON that keeps every character."""
    return json.dumps(value, ensure_ascii=False)
