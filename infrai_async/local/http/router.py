"""Route a method and a raw path to a capability.

aiohttp's router matches the decoded path, in which ``%2F`` equals ``/`` and ``..`` has been resolved. Object keys need
the difference (CONTRACT.md D3), so the raw path is matched here and each value is decoded exactly once, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from infrai_async.capabilities import Capability, Route
from infrai_async.local._errors import RequestRefused, invalid, wrong_method
from infrai_async.local.http.unserved import unserved

Row: TypeAlias = Capability[Any]
_SHOWN: Final = 200  # characters of an unknown path
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def decode_segment(raw: str) -> str:
    """Decode the percent-encoding of a path once.

    Raises:
        RequestRefused: 400, if it has an invalid escape or is not UTF-8 after decoding.
    """
    if _BROKEN_ESCAPE.search(raw):
        raise invalid("the path contains an invalid percent escape", path=raw.encode(errors="replace").decode())
    try:
        return unquote_to_bytes(raw.encode(errors="surrogateescape")).decode()
    except UnicodeDecodeError:
        raise invalid("the path is not valid UTF-8 after percent-decoding") from None


def _pattern(template: str) -> re.Pattern[str]:
    """Compile a path template; a value at the end of the path, or an object's key, may contain literal slashes."""

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
    """A capability, the route that matched, and the decoded values of its path parameters."""

    capability: Row
    route: Route
    values: Mapping[str, str]


class Router:
    """Find the capability that a request addresses.

    Args:
        capabilities: the capabilities to serve.
        generation: the index of the generation to serve of capabilities with two generations of routes (CONTRACT.md
            D2); ``None`` serves both.
    """

    def __init__(self, capabilities: Iterable[Row], generation: int | None = None) -> None:
        self._fixed: dict[str, dict[str, _Entry]] = {}
        self._open: list[_Entry] = []
        self._names: list[str] = []
        for capability in capabilities:
            for number, route in enumerate(capability.routes):
                if generation is None or len(capability.routes) == 1 or number == generation:
                    self._add(_Entry(capability, route, _pattern(route.path)))

    def _add(self, entry: _Entry) -> None:
        self._names.append(f"{entry.capability.method} {entry.route.path}")
        if "{" in entry.route.path:
            self._open.append(entry)
        else:
            self._fixed.setdefault(entry.route.path, {})[entry.capability.method] = entry

    def match(self, method: str, path: str) -> Match:
        """Return the capability for a method and a raw path.

        Raises:
            RequestRefused: 404, if the path is unknown; 405, if it does not allow the method; 400, if it is malformed.
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
        raise self._unknown(method, path)

    def _unknown(self, method: str, path: str) -> RequestRefused:
        """Return the response to a request that addresses no capability that is served (D29)."""
        if (id := unserved(method, path)) is not None:
            message = f"the local gateway does not serve {id} yet"
            return RequestRefused(501, "NOT_IMPLEMENTED", message, details={"capability": id}, retryable=False)
        asked = f"{method[:20]} {path[:_SHOWN]}".encode(errors="replace").decode()
        hint = "GET /v1/discovery lists all capabilities"
        if near := get_close_matches(asked, self._names, n=1, cutoff=0.8):
            hint = f"did you mean {near[0]}? {hint}"
        details = {"method": method[:20], "path": asked.partition(" ")[2]}
        return RequestRefused(404, "NOT_FOUND", f"no capability has the route {asked}", hint=hint, details=details)
