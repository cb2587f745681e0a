"""The errors that the gateway returns, with their documented codes (CONTRACT.md 1.3)."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Mapping

from infrai_async.models import JSON


class RequestRefused(Exception):
    """An error response. Raised inside a transaction, it rolls back the call and its price.

    Attributes:
        status: the HTTP status.
        code: the stable code.
        message: what is wrong.
        hint: what to do about it.
        details: machine-readable details.
        headers: HTTP headers that belong to the status.
        extra: further fields of the error object, such as ``checkout_url``.
        retryable: whether the same request may succeed later; by default for 429 and 5xx.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, JSON] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, JSON] | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details
        self.headers: dict[str, str] = dict(headers or {})
        self.extra: dict[str, JSON] = dict(extra or {})
        self.retryable: bool = status == 429 or status >= 500 if retryable is None else retryable

    def to_dict(self) -> dict[str, JSON]:
        """Return the envelope's ``error``."""
        error: dict[str, JSON] = {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
        }
        if self.details is not None:
            error["details"] = dict(self.details)
        return error | self.extra

    def to_record(self) -> dict[str, JSON]:
        """Return the arguments that recreate this error, to be stored under an idempotency key."""
        return {
            "status": self.status,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": None if self.details is None else dict(self.details),
            "retryable": self.retryable,
        }


_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_SQLITE_FULL = 13
_POSTGRES_FULL = "53100"


def out_of_resources(error: BaseException) -> RequestRefused | None:
    """Return the response for an error of a machine that has run out of something, or None for any other error."""
    original = getattr(error, "orig", None) or error  # what SQLAlchemy wraps
    number = original.errno if isinstance(original, OSError) else None
    full = getattr(original, "sqlstate", None) == _POSTGRES_FULL
    if number in _FULL or full or getattr(original, "sqlite_errorcode", None) == _SQLITE_FULL:
        return RequestRefused(
            507,
            "INSUFFICIENT_STORAGE",
            "no space left on device: the gateway cannot store this",
            hint="free space on the disk of the data directory; nothing that was acknowledged is lost",
        )
    if number in _NO_DESCRIPTORS:
        return RequestRefused(
            503,
            "VENDOR_UNAVAILABLE",
            "the gateway is out of file descriptors",
            hint="close connections to it, or raise the limit (ulimit -n) and start it again",
        )
    return None


def retry_after(seconds: float) -> dict[str, str]:
    """Return the headers that ask for a pause: whole seconds, rounded up, and the exact milliseconds (D30)."""
    return {"Retry-After": str(math.ceil(seconds)), "Retry-After-Ms": str(math.ceil(round(seconds * 1000, 6)))}


def invalid(message: str, **fields: str) -> RequestRefused:
    """Return a 400 that names the invalid fields and what each of them must be."""
    return RequestRefused(400, "VALIDATION_ERROR", message, details={"fields": dict(fields)} if fields else None)


def not_found(thing: str, name: str) -> RequestRefused:
    """Return a 404 for ``thing``, in the contract's spelling: ``DB_PROJECT``, ``FLAG``, ..."""
    words = thing.lower().replace("_", " ")
    return RequestRefused(404, f"{thing}_NOT_FOUND", f"{words} {name!r} does not exist", details={"id": name})


def conflict(code: str, message: str, **details: JSON) -> RequestRefused:
    """Return a 409."""
    return RequestRefused(409, code, message, details=details)


def wrong_method(method: str, allowed: Iterable[str]) -> RequestRefused:
    """Return a 405 that lists the methods that a path allows."""
    names = ", ".join(sorted(allowed))
    return RequestRefused(
        405, "METHOD_NOT_ALLOWED", f"this path allows {names}, not {method[:20]}", headers={"Allow": names}
    )
