"""Rewrite the headers of a response whose origin is mounted below a path of the gateway, without I/O.

An absolute path in them refers to the origin's root, which is not the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from multidict import CIMultiDict

_LOCATIONS: Final = ("Location", "Content-Location", "SourceMap")
_REFRESH: Final = re.compile(r"""(\s*[0-9.]+\s*[;,]\s*(?:url\s*=\s*)?["']?)(.*)""", re.IGNORECASE | re.DOTALL)
_TARGET: Final = re.compile(r"<(/(?!/)[^>]*)>")
_NOT_OF_A_PART: Final = ("Clear-Site-Data", "Service-Worker-Allowed", "Alt-Svc")
"""They concern the whole host, which is the gateway's and not the origin's."""


def mount(headers: CIMultiDict[str], prefix: str) -> None:
    """Rewrite the paths in the headers of a response.

    Args:
        headers: the headers, which are changed.
        prefix: the path under which the origin's root can be found, without a slash at its end.
    """
    for name in _NOT_OF_A_PART:
        headers.popall(name, None)
    for name in _LOCATIONS:
        if name in headers:
            headers[name] = _below(prefix, headers[name])
    if (refresh := _REFRESH.fullmatch(headers.get("Refresh", ""))) is not None:
        headers["Refresh"] = refresh[1] + _below(prefix, refresh[2])
    _replace(headers, "Link", lambda line: _TARGET.sub(lambda found: f"<{_below(prefix, found[1])}>", line))
    _replace(headers, "Set-Cookie", lambda line: _cookie(prefix, line))


def _replace(headers: CIMultiDict[str], name: str, change: Callable[[str], str]) -> None:
    for line in headers.popall(name, ()):
        headers.add(name, change(line))


def _below(prefix: str, location: str) -> str:
    return f"{prefix}{location}" if location.startswith("/") and not location.startswith("//") else location


def _cookie(prefix: str, line: str) -> str:
    """Return a cookie for the origin's paths alone, and for no other host."""
    value, *attributes = line.split(";")
    kept = [value]
    for attribute in attributes:
        name, _, path = attribute.partition("=")
        if name.strip().lower() == "path" and path.strip().startswith("/"):
            kept.append(f"{name}={(prefix + path.strip()).rstrip('/')}")
        elif name.strip().lower() != "domain":
            kept.append(attribute)
    return ";".join(kept)
