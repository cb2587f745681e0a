"""All errors of the package, arranged by what the caller can do about them.

InfraiError
├── ConfigurationError          a setting is missing or unusable: fix the setup
├── InvalidArgument             (ValueError) an argument is invalid: fix the call
├── ClientClosedError           (RuntimeError) the client is closed: create a new one
├── PaginationError             the service repeated a cursor: the listing would never end
├── BudgetExceeded              the budget of the enclosing block is spent
├── DecodeError                 the response violates the contract
├── TransportError              no complete response arrived
│   ├── ConnectError            no connection was established: nothing was sent
│   └── TimeoutError            (builtin TimeoutError) the call's time limit expired
└── APIError                    the service returned an error, with ``code`` and ``hint``
    ├── BadRequestError         400, 422
    ├── AuthenticationError     401
    ├── InsufficientCreditError 402, with ``checkout_url``
    ├── PermissionDeniedError   403
    ├── NotFoundError           404
    ├── ConflictError           409, version conflicts included
    ├── RateLimitError          429, with ``retry_after``
    └── ServerError             5xx, with ``retry_after``
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, TypeVar

import attrs

Outcome: TypeAlias = Literal["not_sent", "rejected", "maybe_applied"]
_LONGEST_LINE: Final = 1000
_E = TypeVar("_E", bound=BaseException)


@attrs.frozen(kw_only=True)
class Attempt:
    """One attempt to send a call.

    Attributes:
        started_at: time at which it was sent, in UTC.
        seconds: duration in seconds, until the response or the failure.
        status: HTTP status of the response; ``None`` when no complete response arrived.
        error: short description of the failure: the service's error code or the transport's failure.
        waited: seconds spent waiting before the attempt, for a slot in the pool, a retry pause or throttling.
        request_id: the service's id of this attempt, to quote to its support.
    """

    started_at: datetime
    seconds: float
    status: int | None = None
    error: str | None = None
    waited: float = 0.0
    request_id: str | None = None


def one_line(text: str) -> str:
    """Return ``text`` as a single line of bounded length, without control characters."""
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char.isspace())
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


def without_frames(error: _E) -> _E:
    """Return an exception after dropping its traceback, its cause and its context.

    The local variables of those frames may hold secrets, which error trackers record: what was sent, what was received,
    or the places that the API key comes from.
    """
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


class InfraiError(Exception):
    """Base class of all errors that this package raises.

    Catch it to handle any failed call; ``outcome`` then says whether the call may have taken effect.

    Attributes:
        message: description of the error, one line without secrets.
        outcome: ``"not_sent"`` if the service received nothing, ``"rejected"`` if it refused the call and changed
            nothing, ``"maybe_applied"`` if it may have carried out the call. In the last case, repeat the call with
            ``idempotency_key`` to learn its result (contract D19).
        attempts: one ``Attempt`` for each time the call was sent, the last one included.
        idempotency_key: idempotency key of the call, if it had one.
        capability: id of the capability that was called, if any.

    Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d19
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
        # ``OSError``, a base of ``TimeoutError``, has a ``__reduce__`` that loses attributes set from keywords.
        return _rebuild, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        return f"{self.capability}: {self.message}" if self.capability else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


def _rebuild(cls: type[InfraiError], args: tuple[object, ...]) -> InfraiError:
    return cls(*(str(arg) for arg in args))


class ConfigurationError(InfraiError):
    """Raised when a setting is missing or unusable, such as the API key or the base URL.

    It is also raised where the asynchronous client finds no running asyncio, under trio for example. Fix the setup: the
    message names the setting. Nothing was sent.
    """


class InvalidArgument(InfraiError, ValueError):
    """Raised when an argument is invalid, or when the service has no route that carries it (contract D2).

    Fix the call: the message names the argument and says what it must be. Nothing was sent, unless ``attempts`` shows
    that the service did not know the route.
    """


class ClientClosedError(InfraiError, RuntimeError):
    """Raised when a call is made on a closed client, or still waits for a slot in the pool as it closes.

    Nothing was sent. Create a new client to go on.
    """


class PaginationError(InfraiError):
    """Raised when the service returns a cursor that the listing has already followed.

    Going on would never end. The service is at fault: report it with the ``request_id`` of the last page.
    """


class BudgetExceeded(InfraiError):
    """Raised when a call is made although the budget of the enclosing ``with client.budget(...)`` is spent.

    The call was not sent. Raise the budget, or make the call outside the block.
    """


class DecodeError(InfraiError):
    """Raised when a response violates the contract, for example when a promised field is missing.

    The call may have taken effect: check ``outcome`` before repeating it. Update the package, or report the ``path``.

    Attributes:
        path: location in the response, for example ``$.data.items[3].created_at``.
        status: HTTP status of the response.
    """

    def __init__(self, message: str = "", *, path: str = "$", status: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path
        self.status = status


class TransportError(InfraiError):
    """Raised when no complete response arrived: the connection broke, or the client was closed during the call.

    The retry policy has been applied already. If ``outcome`` is ``"maybe_applied"``, repeat the call with
    ``idempotency_key`` to learn its result.
    """

    _repeatable = True  # false if another attempt would certainly fail in the same way


class ConnectError(TransportError):
    """Raised when no connection could be established (DNS, network, TLS or proxy).

    Nothing was sent, so the call is safe to repeat once the service can be reached.
    """


class TimeoutError(TransportError, builtins.TimeoutError):
    """Raised when the time limit of a call expires, which covers waiting, all attempts and all pauses.

    Raise ``timeout``, or check ``outcome`` before repeating the call.
    """


class APIError(InfraiError):
    """Raised when the service returns an error; subclasses cover the common statuses.

    Branch on the class or on ``code``; ``hint`` often says what to do.

    Attributes:
        status: HTTP status.
        code: stable error code of the service; ``None`` if the response had none.
        hint: the service's advice.
        request_id: the service's id of the call, to quote to its support.
        retryable: whether the service says that the call can be retried; ``None`` if it does not say.
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
    """Raised on 400 or 422: the service rejects the arguments. Fix the call."""


class AuthenticationError(APIError):
    """Raised on 401: the API key is missing, unknown or revoked. Provide a valid key."""


class InsufficientCreditError(APIError):
    """Raised on 402: the wallet is empty. Top it up, then repeat the call.

    Attributes:
        checkout_url: URL of the payment page, if the response names it.
    """

    def __init__(self, message: str = "", *, checkout_url: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.checkout_url = checkout_url


class PermissionDeniedError(APIError):
    """Raised on 403: the API key is not allowed to make this call. Use a key with the permission."""


class NotFoundError(APIError):
    """Raised on 404: the resource does not exist. Check its id or name."""


class ConflictError(APIError):
    """Raised on 409: the call conflicts with the current state.

    The name is taken, the ``version`` is outdated (read the resource again), or the idempotency key was used for a
    different request (use a new one).
    """


class RateLimitError(APIError):
    """Raised on 429, if the pause that the service demands does not fit in the call's time limit or retries are off.

    Also raised without sending when other calls were throttled and that pause does not fit. Wait ``retry_after``
    seconds before the next call, or allow the call a longer ``timeout``.

    Attributes:
        retry_after: seconds to wait, at most ``RetryPolicy.longest_pause``; ``None`` if the service does not say.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


class ServerError(APIError):
    """Raised on 5xx: the service or its vendor failed.

    The retry policy has been applied already. Check ``outcome`` before repeating the call. Also raised without sending
    when a 503 made the pool pause and that pause does not fit in the call's time limit.

    Attributes:
        retry_after: seconds to wait, at most ``RetryPolicy.longest_pause``; ``None`` if the service does not say.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.retry_after = retry_after


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
    """Return the error class for a response: by its status or, when that is 2xx, by its code."""
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
