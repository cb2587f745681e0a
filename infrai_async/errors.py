"""Every error, by what its reader can do about it.

InfraiError
├── ConfigurationError          a setting is missing or unusable: mend the setup
├── InvalidArgument             (ValueError) an argument is wrong: mend the call; nothing was sent
├── ClientClosedError           (RuntimeError) the client was closed
├── PaginationError             the service handed out a cursor a second time
├── BudgetExceeded              the budget of this block is spent
├── DecodeError                 the answer is not what the contract promises
├── TransportError              no complete answer came
│   ├── ConnectError            no connection was made: nothing was sent
│   └── TimeoutError            (builtin TimeoutError) the call's time ran out
└── APIError                    the service refused, with ``code`` and ``hint``
    ├── BadRequestError         400, 422
    ├── AuthenticationError     401
    ├── InsufficientCreditError 402, with ``checkout_url``
    ├── PermissionDeniedError   403
    ├── NotFoundError           404
    ├── ConflictError           409, version conflicts included
    ├── RateLimitError          429, with ``retry_after``
    └── ServerError             5xx
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import attrs

Outcome: TypeAlias = Literal["not_sent", "rejected", "maybe_applied"]
_LONGEST_LINE: Final = 1000


@attrs.frozen(kw_only=True)
class Attempt:
    """One time that a call was sent.

    Attributes:
        started_at: when it was sent, in UTC.
        seconds: how long it took to be answered or to fail.
        status: the answer's HTTP status; ``None`` when no complete answer came.
        error: what went wrong, in a few words: the service's code or the transport's failure.
        waited: seconds spent waiting before it (a place in the pool, a pause between attempts, a closed gate).
        request_id: the service's id of this attempt, for its support.
    """

    started_at: datetime
    seconds: float
    status: int | None = None
    error: str | None = None
    waited: float = 0.0
    request_id: str | None = None


def one_line(text: str) -> str:
    """Return ``text`` fit for a log: one line of bounded length, without control characters."""
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char.isspace())
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


class InfraiError(Exception):
    """The base of everything that this package raises on purpose.

    Attributes:
        message: what went wrong, in one line without secrets.
        outcome: ``"not_sent"``: the service saw nothing; ``"rejected"``: it refused and did nothing;
            ``"maybe_applied"``: it may have done it. The same call with ``idempotency_key`` tells (CONTRACT.md D19).
        attempts: one entry for each time that the call was sent, the last included.
        idempotency_key: the key that the call carried, where it had one.
        capability: the id of the capability that was called, where one was.
    """

    def __init__(
        self,
        message: str = "",
        *,
        outcome: Outcome = "not_sent",
        attempts: tuple[Attempt, ...] = (),
        idempotency_key: str | None = None,
        capability: str | None = None,
    ) -> None:
        line = one_line(message)
        super().__init__(line)
        self.message = line
        self.outcome: Outcome = outcome
        self.attempts = attempts
        self.idempotency_key = idempotency_key
        self.capability = capability

    def __reduce__(self) -> tuple[Any, ...]:
        # ``OSError``, a base of ``TimeoutError``, brings a ``__reduce__`` that loses keyword state.
        return _rebuild, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        return f"{self.capability}: {self.message}" if self.capability else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


def _rebuild(cls: type[InfraiError], args: tuple[object, ...]) -> InfraiError:
    return cls(*(str(arg) for arg in args))


class ConfigurationError(InfraiError):
    """A setting is missing or unusable: the key, the base URL, the borrowed session."""


class InvalidArgument(InfraiError, ValueError):
    """An argument is wrong; the message names it and says what it should be. Nothing was sent."""


class ClientClosedError(InfraiError, RuntimeError):
    """The client was closed before this call got a place."""


class PaginationError(InfraiError):
    """The service answered a cursor that this listing has already followed; going on would never end."""


class BudgetExceeded(InfraiError):
    """The budget of the surrounding block is spent; this call was not sent."""


class DecodeError(InfraiError):
    """The answer is not what the contract promises.

    Attributes:
        path: where in the answer, for example ``$.data.items[3].created_at``.
        status: the answer's HTTP status.
    """

    def __init__(self, message: str = "", *, path: str = "$", status: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path
        self.status = status


class TransportError(InfraiError):
    """No complete answer came: the connection broke, the answer was cut off, or the client was closed meanwhile."""


class ConnectError(TransportError):
    """No connection was made (name, network, TLS, proxy); nothing was sent."""


class TimeoutError(TransportError, builtins.TimeoutError):
    """The call's time ran out, counted over waiting, every attempt and every pause."""


class APIError(InfraiError):
    """The service answered that it did not do it.

    Attributes:
        status: the HTTP status.
        code: the service's stable code, to branch on; ``None`` when the answer had none.
        hint: what the service suggests.
        request_id: the service's id of the call, for its support.
        retryable: what the service says of trying again; ``None`` when it says nothing.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        code: str | None = None,
        hint: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.code: str | None = one_line(code) if code else code
        self.hint: str | None = one_line(hint) if hint else hint
        self.request_id = request_id
        self.retryable = retryable
        if self.hint:
            self.add_note(f"hint: {self.hint}")

    def __str__(self) -> str:
        code = f"{self.code} ({self.status})" if self.code else f"HTTP {self.status}"
        request = f" [request {self.request_id}]" if self.request_id else ""
        return f"{self.capability + ': ' if self.capability else ''}{code}: {self.message}{request}"


class BadRequestError(APIError):
    """400 or 422: the service does not accept the arguments."""


class AuthenticationError(APIError):
    """401: the API key is missing, unknown or revoked."""


class InsufficientCreditError(APIError):
    """402: the wallet is empty. ``checkout_url`` is where to pay, when the answer names it."""

    def __init__(self, message: str = "", *, checkout_url: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.checkout_url = checkout_url


class PermissionDeniedError(APIError):
    """403: the key may not do this."""


class NotFoundError(APIError):
    """404: what was named does not exist."""


class ConflictError(APIError):
    """409: it exists already, its version has moved on, or the idempotency key belongs to another request."""


class RateLimitError(APIError):
    """429: too many calls. ``retry_after`` is how many seconds to wait, as far as the service said."""

    def __init__(self, message: str = "", *, retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class ServerError(APIError):
    """5xx: the service or its vendor failed."""


_BY_STATUS: Final[Mapping[int, type[APIError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: BadRequestError,
    429: RateLimitError,
}
_BY_CODE: Final[Mapping[str, type[APIError]]] = {
    "VALIDATION_ERROR": BadRequestError,
    "UNAUTHORIZED": AuthenticationError,
    "INSUFFICIENT_CREDIT": InsufficientCreditError,
    "FORBIDDEN": PermissionDeniedError,
    "NOT_FOUND": NotFoundError,
    "STORAGE_BUCKET_EXISTS": ConflictError,
    "FLAG_VERSION_CONFLICT": ConflictError,
    "IDEMPOTENCY_KEY_REUSED": ConflictError,
    "RATE_LIMITED": RateLimitError,
    "INTERNAL_ERROR": ServerError,
    "VENDOR_ERROR": ServerError,
    "VENDOR_UNAVAILABLE": ServerError,
    "VENDOR_TIMEOUT": ServerError,
}


def api_error_class(status: int, code: str | None) -> type[APIError]:
    """Return the class of a refusal: by its status, or under a 2xx by its code."""
    if 200 <= status < 300:
        if code is not None and code.endswith("_NOT_FOUND"):
            return NotFoundError
        return _BY_CODE.get(code or "", APIError)
    return _BY_STATUS.get(status, ServerError if status >= 500 else APIError)


__all__ = [
    "APIError",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BudgetExceeded",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "DecodeError",
    "InfraiError",
    "InsufficientCreditError",
    "InvalidArgument",
    "NotFoundError",
    "Outcome",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "TimeoutError",
    "TransportError",
    "api_error_class",
]
