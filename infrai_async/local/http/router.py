"""From a method and a raw path to a row of the table.

aiohttp's router reads the decoded path, in which ``%2F`` and ``/`` are one and ``..`` is gone; object keys need them
apart (CONTRACT.md D3). So the raw path is matched, and each value is decoded exactly once, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from infrai_async.capabilities import Capability, Route
from infrai_async.local._errors import RequestRefused, invalid, wrong_method

Row: TypeAlias = Capability[Any]
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode_segment(raw: str) -> str:
    """Undo percent-encoding once.

    Raises:
        RequestRefused: a broken escape, or bytes that are not UTF-8.
    """
    if _BROKEN_ESCAPE.search(raw):
        raise invalid("the path holds a '%' that escapes nothing", path=raw.encode(errors="replace").decode())
    try:
        return unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        raise invalid("the path is not UTF-8 once decoded") from None


def _pattern(template: str) -> re.Pattern[str]:
    """Compile a template; a value that ends the path or is an object's key may hold literal slashes."""

    def field(match: re.Match[str]) -> str:
        greedy = match.end() == len(template) or match[1] == "key"
        return f"(?P<{match[1]}>{'.+' if greedy else '[^/]+'})"

    return re.compile(re.sub(r"\{(\w+)\}", field, template), re.DOTALL)


@attrs.frozen
class _Entry:
    capability: Row
    route: Route
    pattern: re.Pattern[str]


@attrs.frozen
class Match:
    """A row, the generation of its route that was used, and the decoded values of its path."""

    capability: Row
    route: Route
    values: Mapping[str, str]


class Router:
    """Finds the row of a request.

    Args:
        rows: the table.
        generation: where a row has routes of two generations (CONTRACT.md D2), serve only this one; ``None``: both.
    """

    def __init__(self, capabilities: Iterable[Row], generation: int | None = None) -> None:
        self._fixed: dict[str, dict[str, _Entry]] = {}
        self._open: list[_Entry] = []
        for capability in capabilities:
            for number, route in enumerate(capability.routes):
                if generation is None or len(capability.routes) == 1 or number == generation:
                    self._add(_Entry(capability, route, _pattern(route.path)))

    def _add(self, entry: _Entry) -> None:
        if "{" in entry.route.path:
            self._open.append(entry)
        else:
            self._fixed.setdefault(entry.route.path, {})[entry.capability.method] = entry

    def match(self, method: str, path: str) -> Match:
        """Return what ``method`` and the raw ``path`` name.

        Raises:
            RequestRefused: 404 for an unknown path, 405 for a method that it does not take, 400 for a broken path.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            entry = fixed.get(method)
            if entry is None:
                raise wrong_method(method, fixed)
            return Match(entry.capability, entry.route, {})
        return self._match_open(method, path)

    def _match_open(self, method: str, path: str) -> Match:
        others: set[str] = set()
        for entry in self._open:
            found = entry.pattern.fullmatch(path)
            if found and entry.capability.method == method:
                values = {name: decode_segment(raw) for name, raw in found.groupdict().items()}
                return Match(entry.capability, entry.route, values)
            if found:
                others.add(entry.capability.method)
        if others:
            raise wrong_method(method, others)
        raise RequestRefused(404, "NOT_FOUND", "no capability has this path", hint="GET /v1/discovery lists them all")
