"""The rules of a shared cache (RFC 9111): what may be stored, for how long and for which requests.

The functions are pure, without I/O or a clock. Times are on any monotonic clock of the caller's choice; only the
``Date`` header is compared with wall-clock time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Final, TypeAlias

import attrs
from multidict import CIMultiDict, CIMultiDictProxy

from infrai_async.local.http.conditional import http_date

Headers: TypeAlias = CIMultiDict[str] | CIMultiDictProxy[str]
_PART: Final = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
_MEMBER: Final = re.compile(
    r'(?P<name>[a-z*][a-z0-9_.*-]*)(?:=(?P<value>-?[0-9]{1,15}|\?[01]|[A-Za-z*][!-+.-:<-~]*|"[^"\\,]*"))?(?:;[^,"]*)?'
)
_COUNTED: Final = frozenset({"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"})
"""The directives whose values are seconds."""
_LONGEST: Final = 2**31
_CACHEABLE: Final = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
"""The statuses that may be cached without explicit freshness (RFC 9110, section 15.1)."""
_ERROR_TTL: Final = 10
"""The longest freshness lifetime of an error without explicit freshness: a missing page may soon be added."""
_OF_A_BODY: Final = frozenset({"content-encoding", "content-type", "content-range", "content-length"})


@attrs.frozen(eq=False)
class OriginResponse:
    """An origin's response without its body.

    Attributes:
        born: the time at which its age was 0.
        vary: the request's values of the headers that ``Vary`` names; ``None`` if it matches no other request.
        directives: the directives of its ``Cache-Control``.
        explicit: its explicit freshness lifetime in seconds, if it has one.
        tags: the tags by which it can be purged.
    """

    status: int
    headers: CIMultiDict[str]
    born: float
    vary: Mapping[str, str | None] | None
    directives: Mapping[str, str]
    explicit: int | None
    tags: frozenset[str]

    def lifetime(self, ttl: int) -> int | None:
        """Return the freshness lifetime in seconds; ``ttl`` applies if the origin gives none."""
        if self.explicit is not None:
            return self.explicit
        if self.status not in _CACHEABLE and "public" not in self.directives:
            return None
        return min(ttl, _ERROR_TTL) if self.status >= 400 else ttl

    def may_be_kept(self, request: Headers, ttl: int) -> bool:
        """Return whether a shared cache may store the response, and could ever reuse it."""
        lifetime = self.lifetime(ttl)
        if lifetime is None or self.vary is None or self.status in (206, 304) or "Set-Cookie" in self.headers:
            return False
        if {"no-store", "private"} & self.directives.keys():
            return False
        if "Authorization" in request and not {"public", "must-revalidate", "s-maxage"} & self.directives.keys():
            return False
        return lifetime > 0 or bool(self.validators())

    def is_fresh(self, now: float, ttl: int) -> bool:
        """Return whether the response may be used without revalidation."""
        return "no-cache" not in self.directives and now - self.born < (self.lifetime(ttl) or 0)

    def is_tolerable(self, now: float, ttl: int, directive: str) -> bool:
        """Return whether ``stale-while-revalidate`` or ``stale-if-error`` allows the stale response to be used."""
        if {"no-cache", "must-revalidate", "proxy-revalidate"} & self.directives.keys():
            return False
        return now - self.born < (self.lifetime(ttl) or 0) + (_seconds(self.directives, directive) or 0)

    def fits(self, request: Headers) -> bool:
        """Return whether the response matches a request, according to ``Vary``."""
        return self.vary is not None and all(_said(request, name) == value for name, value in self.vary.items())

    def validators(self) -> dict[str, str]:
        """Return the request headers that revalidate the response at its origin."""
        names = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
        return {asking: self.headers[name] for asking, name in names.items() if name in self.headers}


def answer(status: int, headers: CIMultiDict[str], request: Headers, born: float, received: datetime) -> OriginResponse:
    """Return an origin's response to a request, with its caching properties parsed.

    Without a valid ``Date`` it gets the time at which it was ``received`` (RFC 9110, section 6.6.1).
    """
    if http_date(headers.get("Date")) is None:
        headers["Date"] = format_datetime(received, usegmt=True)
    targeted = parse_targeted(headers.getall("CDN-Cache-Control", ()))
    directives = parse_directives(headers.getall("Cache-Control", ())) if targeted is None else targeted
    explicit = _explicit(headers if targeted is None else {}, directives)
    return OriginResponse(status, headers, born, _variant(headers, request), directives, explicit, tags(headers))


def refreshed(
    old: OriginResponse, headers: Headers, request: Headers, born: float, received: datetime
) -> OriginResponse:
    """Return a stored response, updated with the headers of a 304 (RFC 9111, section 3.2)."""
    updated = [(name, value) for name, value in headers.items() if name.lower() not in _OF_A_BODY]
    replaced = {name.lower() for name, _ in updated}
    kept = [(name, value) for name, value in old.headers.items() if name.lower() not in replaced | {"age"}]
    return answer(old.status, CIMultiDict([*kept, *updated]), request, born, received)


def initial_age(headers: Headers, received: datetime, delay: float) -> float:
    """Return the age of a response received ``delay`` seconds after its request (RFC 9111, section 4.2.3)."""
    date = http_date(headers.get("Date"))
    apparent = 0.0 if date is None else (received - date).total_seconds()
    # An age that is a list counts by its first member (RFC 9111, section 5.1).
    age = headers.get("Age", "").partition(",")[0].strip()
    return max(0.0, apparent, (_number(age) or 0) + delay)


def parse_directives(lines: Iterable[str]) -> dict[str, str]:
    """Return the directives of ``Cache-Control`` by lower-case name; the first of a repeated directive counts."""
    directives: dict[str, str] = {}
    for part in _PART.findall(",".join(lines)):
        name, _, value = part.partition("=")
        directives.setdefault(name.strip().lower(), value.strip().strip('"'))
    return directives


def parse_targeted(lines: Iterable[str]) -> dict[str, str] | None:
    """Return the directives of a targeted field such as ``CDN-Cache-Control`` (RFC 9213).

    It is a dictionary of structured fields, and takes the place of ``Cache-Control`` and ``Expires``. Without one, or
    if it is malformed, ``None`` is returned, and it counts for nothing.
    """
    text = ", ".join(lines).strip()
    directives: dict[str, str] = {}
    for member in text.split(",") if text else ():
        found = _MEMBER.fullmatch(member.strip())
        if found is None or (found["name"] in _COUNTED and not (found["value"] or "").isdigit()):
            return None
        directives.pop(found["name"], None)
        if found["value"] != "?0":
            directives[found["name"]] = (found["value"] or "").strip('"')
    return directives or None


def tags(headers: Headers) -> frozenset[str]:
    """Return the tags that an origin gave to its response."""
    by_comma = (tag.strip() for line in headers.getall("Cache-Tag", ()) for tag in line.split(","))
    by_space = (tag for line in headers.getall("Surrogate-Key", ()) for tag in line.split())
    return frozenset((*by_comma, *by_space)) - {""}


def _explicit(headers: Mapping[str, str], directives: Mapping[str, str]) -> int | None:
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives, name)
    if "Expires" not in headers:
        return None
    expires, date = http_date(headers["Expires"]), http_date(headers["Date"])
    return 0 if expires is None or date is None else max(0, int((expires - date).total_seconds()))


def _seconds(directives: Mapping[str, str], name: str) -> int | None:
    """Return the seconds of a directive; a malformed number counts as 0, which makes the response stale."""
    return (_number(directives[name]) or 0) if name in directives else None


def _number(text: str) -> int | None:
    return min(int(text[:12]), _LONGEST) if text.isascii() and text.isdigit() else None


def _variant(headers: Headers, request: Headers) -> dict[str, str | None] | None:
    names = {name.strip().lower() for line in headers.getall("Vary", ()) for name in line.split(",")} - {""}
    return None if "*" in names else {name: _said(request, name) for name in sorted(names)}


def _said(request: Headers, name: str) -> str | None:
    """Return the normalized value of a request header: lines joined, without space around commas."""
    lines = request.getall(name, None)
    return None if lines is None else ",".join(part.strip() for line in lines for part in line.split(","))
