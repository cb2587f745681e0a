"""The exceptions, grouped by what the caller can do about them.

InfraiError
├── ConfigurationError          a setting is missing or unusable: fix the setup
├── InvalidArgument             (ValueError) an argument is wrong: fix the call; nothing was sent
├── ClientClosedError           (RuntimeError) the client is closed: create another one
├── PaginationError             the service returned the same cursor twice
├── BudgetExceeded              the budget of the enclosing block is spent; nothing was sent
├── DecodeError                 the response does not have the documented form
├── TransportError              no complete response arrived
│   ├── ConnectError            no connection was made: nothing was sent
│   └── TimeoutError            (builtin TimeoutError) the call's time limit was reached
└── APIError                    the service refused the call, with ``code`` and ``hint``
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
    """One attempt of a call.

    Attributes:
        started_at: when the attempt was sent, in UTC.
        seconds: how long it took to get a response or to fail.
        status: the HTTP status of the response; ``None`` if no complete response arrived.
        error: a short reason for the failure: the service's error code or the transport's message.
        waited: the seconds spent waiting before this attempt: for a slot in the pool, for a pause between attempts,
            or while the service was throttling.
        request_id: the service's id of this attempt, to quote to its support.
    """

    started_at: datetime
    seconds: float
    status: int | None = None
    error: str | None = None
    waited: float = 0.0
    request_id: str | None = None


def one_line(text: str) -> str:
    """Return ``text`` as one line that is safe to log: of bounded length and without control characters."""
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char.isspace())
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


class InfraiError(Exception):
    """The base class of all exceptions that this package raises deliberately.

    Catch it to handle every failure of a call, and look at ``outcome`` to decide whether to repeat the call.

    Attributes:
        message: what went wrong, in one line without secrets.
        outcome: ``"not_sent"`` if the service never saw the call, ``"rejected"`` if the service refused it and did
            nothing, ``"maybe_applied"`` if the call may have taken effect. In the last case, repeat the call with
            the same ``idempotency_key`` to find out (contract D19).
        attempts: one entry for each attempt, including the last.
        idempotency_key: the idempotency key that the call carried; ``None`` if it had none.
        capability: the id of the capability that was called; ``None`` if the error belongs to no call.
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
        # ``OSError``, a base of ``TimeoutError``, has a ``__reduce__`` that loses the keyword arguments.
        return _rebuild, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        return f"{self.capability}: {self.message}" if self.capability else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


def _rebuild(cls: type[InfraiError], args: tuple[object, ...]) -> InfraiError:
    return cls(*(str(arg) for arg in args))


class ConfigurationError(InfraiError):
    """A setting is missing or unusable: the API key, the base URL, the session, a file or an optional dependency.

    Raised when the client is created, or by the call that first needs the setting. Fix the setup as the message says.
    """


class InvalidArgument(InfraiError, ValueError):
    """An argument is wrong; nothing was sent.

    Raised before the call is made. The message names the argument and says what it should be. Fix the call.
    """


class ClientClosedError(InfraiError, RuntimeError):
    """The client is closed, or was closed before the call was sent.

    Raised for new calls, and for calls that wait for a slot in the pool. Create another client.
    """


class PaginationError(InfraiError):
    """The service returned a cursor that this listing has already followed, so the listing would never end.

    Raised while a cursor is read. The items read so far are valid. Report the fault to the service's support.
    """


class BudgetExceeded(InfraiError):
    """The budget of an enclosing ``client.budget(...)`` block is spent; the call was not sent.

    Raised before each attempt. Raise the budget, or make the call outside the block.
    """


class DecodeError(InfraiError):
    """The response does not have the form that the API documents.

    Raised for a success that cannot be read, so a call that changes something may have taken effect. Check that
    ``base_url`` leads to the API and not to a proxy or sign-in page, then upgrade this package or report the response.

    Attributes:
        path: where in the response the fault is, for example ``$.data.items[3].created_at``.
        status: the HTTP status of the response.
    """

    def __init__(self, message: str = "", *, path: str = "$", status: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path
        self.status = status


class TransportError(InfraiError):
    """No complete response arrived.

    Raised when the connection breaks, the response is cut off, or the client is closed during the call. Look at
    ``outcome``: if it is ``"maybe_applied"``, repeat the call with the same ``idempotency_key``.
    """


class ConnectError(TransportError):
    """No connection could be made, so nothing was sent.

    Raised for failures of name resolution, network, TLS or proxy. Check ``base_url`` and the network, or try later.
    """


class TimeoutError(TransportError, builtins.TimeoutError):
    """The time limit of the call was reached: its ``timeout``, or the deadline of an enclosing block.

    The limit covers waiting for a slot, every attempt and every pause. Raise the limit, or look at ``outcome`` and
    repeat the call.
    """


class APIError(InfraiError):
    """The service refused the call, or failed to carry it out.

    Raised as the subclass that fits the status; as this class for other statuses, redirects included. Branch on
    ``code``, and follow ``hint`` where there is one.

    Attributes:
        status: the HTTP status.
        code: the service's stable error code, to branch on; ``None`` if the response had none.
        hint: the remedy that the service suggests; ``None`` if the response had none.
        request_id: the service's id of the call, to quote to its support.
        retryable: whether the service says that the call may be retried; ``None`` if it says nothing.
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
    """400 or 422: the service does not accept the arguments. Fix the call."""


class AuthenticationError(APIError):
    """401: the API key is missing, unknown or revoked. Pass a valid key."""


class InsufficientCreditError(APIError):
    """402: the wallet is empty. Top it up, then repeat the call; it is never retried automatically.

    Attributes:
        checkout_url: the page to pay at; ``None`` if the response does not name one.
    """

    def __init__(self, message: str = "", *, checkout_url: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.checkout_url = checkout_url


class PermissionDeniedError(APIError):
    """403: the API key does not permit this call. Use a key with more rights."""


class NotFoundError(APIError):
    """404: the resource does not exist. Check its id, or create it."""


class ConflictError(APIError):
    """409: the resource already exists, its ``version`` is out of date, or the idempotency key belongs to another call.

    Branch on ``code``: use the existing resource, read it again and repeat the change, or use another key.
    """


class RateLimitError(APIError):
    """429: the service is limiting the rate of calls.

    Raised when the retries are used up, or when the service's pause would outlast the call's time limit. Wait, then
    repeat the call, or lower ``max_concurrency``.

    Attributes:
        retry_after: the seconds to wait; ``None`` if the service did not say.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class ServerError(APIError):
    """5xx: the service, or the vendor behind it, failed. Try again later.

    Look at ``outcome`` first: a call that changes something may have taken effect.
    """


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
    """Return the exception class for a status or, for an error inside a 2xx response, for its code."""
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
