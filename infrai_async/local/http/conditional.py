"""Conditional and range requests (RFC 9110, sections 13 and 14), without I/O.

``select`` decides which part of a representation to send; stored objects and the edge's cached responses both use it.
Entity tags are written as in a header, with their quotes; times have a resolution of one second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

import attrs

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH: Final = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES: Final = (
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_TAG: Final = re.compile(r'((?:W/)?"[^"]*")\s*(?:,|$)')
_RANGE: Final = re.compile(r"bytes\s*+=\s*+(\d{0,18})\s*+-\s*+(\d{0,18})\s*+", re.IGNORECASE | re.ASCII)


@attrs.frozen
class Selection:
    """The part of a representation to send, with the status and headers for it.

    Attributes:
        status: 200, 206, 304, 412 or 416; only the first two have a body.
        start: the offset of the first byte to send.
        length: the number of bytes to send; ``None`` for the rest of a body whose size is not known yet.
        headers: the validators and the description of the range, but not ``Content-Length``.
    """

    status: int
    start: int
    length: int | None
    headers: Mapping[str, str]


def select(
    method: str,
    headers: Mapping[str, str],
    *,
    etag: str | None = None,
    modified: datetime | None = None,
    size: int | None = None,
) -> Selection:
    """Return what to send in response to a GET or HEAD.

    Args:
        method: the method of the request; ranges apply only to GET.
        headers: the headers of the request, in a case-insensitive mapping.
        etag: the entity tag of the representation, if it has one.
        modified: the time of its last modification, if known.
        size: its size in bytes; ``None`` if it is not known yet, in which case ranges are ignored.
    """
    validators = _validators(etag, modified)
    status = precondition(method, headers, etag=etag, modified=modified)
    if status is not None:
        return Selection(status, 0, 0, validators)
    if size is None:
        return Selection(200, 0, None, validators)
    validators["Accept-Ranges"] = "bytes"
    wanted = _range(headers.get("Range", "")) if method == "GET" and _range_holds(headers, etag, modified) else None
    if wanted is None:
        return Selection(200, 0, size, validators)
    start, stop = _within(wanted, size)
    if start >= stop:
        return Selection(416, 0, 0, validators | {"Content-Range": f"bytes */{size}"})
    return Selection(206, start, stop - start, validators | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})


def precondition(
    method: str,
    headers: Mapping[str, str],
    *,
    etag: str | None = None,
    modified: datetime | None = None,
    exists: bool = True,
) -> int | None:
    """Return 304 or 412 if a precondition of the request fails, or None if the request can be carried out.

    ``exists`` tells whether there is a representation at all: a PUT may create one on condition that there is none.
    """
    reading = method in ("GET", "HEAD")
    if "If-Match" in headers:
        if not _names(headers["If-Match"], etag, exists, weakly=False):
            return 412
    elif (since := http_date(headers.get("If-Unmodified-Since"))) and exists and modified and _second(modified) > since:
        return 412
    if "If-None-Match" in headers:
        if _names(headers["If-None-Match"], etag, exists, weakly=True):
            return 304 if reading else 412
    elif reading and (since := http_date(headers.get("If-Modified-Since"))) and modified and _second(modified) <= since:
        return 304
    return None


def http_date(text: str | None) -> datetime | None:
    """Parse an HTTP-date in one of its three forms (RFC 9110, section 5.6.7); ``None`` for anything else.

    Lenient parsers take zones and punctuation that mean something else elsewhere.
    """
    found = next((match for form in _DATES if (match := form.fullmatch(text or ""))), None)
    if found is None:
        return None
    day, month, year = int(found["day"]), 1 + _MONTHS.index(found["month"]), int(found["year"])
    if len(found["year"]) == 2:  # of the century that is at most 50 years ahead
        now = datetime.now(UTC).year
        year += now // 100 * 100
        year -= 100 if year > now + 50 else 0
    try:  # a leap second counts as the one before it
        second = min(int(found["second"]), 59) if found["second"] == "60" else int(found["second"])
        return datetime(year, month, day, int(found["hour"]), int(found["minute"]), second, tzinfo=UTC)
    except ValueError:
        return None


def to_http_date(moment: datetime) -> str:
    """Format a time for a header."""
    return format_datetime(_second(moment), usegmt=True)


def _validators(etag: str | None, modified: datetime | None) -> dict[str, str]:
    validators = {} if etag is None else {"ETag": etag}
    return validators if modified is None else validators | {"Last-Modified": to_http_date(modified)}


def _second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _names(header: str, etag: str | None, exists: bool, *, weakly: bool) -> bool:
    """Return whether a list of entity tags contains ``etag``, by weak or strong comparison (RFC 9110, 8.8.3.2)."""
    if header.strip() == "*":
        return exists
    tags = _TAG.findall(header)
    if etag is None or not weakly:
        return etag is not None and not etag.startswith("W/") and etag in tags
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags)


def _range_holds(headers: Mapping[str, str], etag: str | None, modified: datetime | None) -> bool:
    """Return whether ``If-Range`` allows a partial response: the client's part must be of this representation."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if '"' in condition:
        return _names(condition, etag, True, weakly=False)
    return modified is not None and http_date(condition) == _second(modified)


def _range(header: str) -> tuple[int | None, int | None] | None:
    """Return the ends of a single byte range; several ranges, and malformed ones, are ignored."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = (int(end) if end else None for end in found.groups())
    return None if first is not None and last is not None and last < first else (first, last)


def _within(wanted: tuple[int | None, int | None], size: int) -> tuple[int, int]:
    first, last = wanted
    if first is None:
        return max(size - (last or 0), 0), size
    return first, size if last is None else min(last + 1, size)
