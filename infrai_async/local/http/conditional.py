"""Conditional and range requests (RFC 9110, sections 13 and 14), without I/O: what of a representation to send.

Whoever serves bytes asks ``select`` and sends what it says; what is stored here and what an edge keeps follow the same
rules. Validators are entity tags as they stand in a header, quotes included, and times in whole seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final

import attrs

_TAG: Final = re.compile(r'((?:W/)?"[^"]*")\s*(?:,|$)')
_RANGE: Final = re.compile(r"bytes\s*+=\s*+(\d{0,18})\s*+-\s*+(\d{0,18})\s*+", re.IGNORECASE | re.ASCII)


@attrs.frozen
class Selection:
    """What to answer: of the body ``length`` bytes from ``start``, and the headers that say so.

    Attributes:
        status: 200, 206, 304, 412 or 416; only the first two have a body.
        start: where the bytes begin.
        length: how many there are; ``None``: all there will be, their number is not known.
        headers: validators and what describes the range; not the ``Content-Length``.
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
    """Return what a GET or HEAD of a representation is answered.

    Args:
        method: the request's; ranges are for GET alone.
        headers: the request's, found whatever their case.
        etag: the representation's entity tag, if it has one.
        modified: when it was last changed, if that is known.
        size: its length; ``None`` when it is not known yet, and then no range can be had of it.
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
    """Return the status of a request whose precondition fails, 304 or 412; ``None`` when it is to be carried out.

    ``exists`` says whether there is a representation at all; where there is none, a write may be meant to make it.
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
    """Return the time that a header tells; ``None`` when there is none or it is none."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def to_http_date(moment: datetime) -> str:
    """Return a time as headers tell it."""
    return format_datetime(_second(moment), usegmt=True)


def _validators(etag: str | None, modified: datetime | None) -> dict[str, str]:
    validators = {} if etag is None else {"ETag": etag}
    return validators if modified is None else validators | {"Last-Modified": to_http_date(modified)}


def _second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _names(header: str, etag: str | None, exists: bool, *, weakly: bool) -> bool:
    """Say whether a list of entity tags names this one; weak ones are the same as strong ones only where that does."""
    if header.strip() == "*":
        return exists
    tags = _TAG.findall(header)
    if etag is None or not weakly:
        return etag is not None and not etag.startswith("W/") and etag in tags
    return etag.removeprefix("W/") in (tag.removeprefix("W/") for tag in tags)


def _range_holds(headers: Mapping[str, str], etag: str | None, modified: datetime | None) -> bool:
    """Say whether what the client has a part of is still what there is."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if '"' in condition:
        return _names(condition, etag, True, weakly=False)
    return modified is not None and http_date(condition) == _second(modified)


def _range(header: str) -> tuple[int | None, int | None] | None:
    """Return the ends of a single range; several, or what is no range of bytes, are as if not asked for."""
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
