"""Whether and when to retry: decisions without I/O, with time and randomness as arguments.

The rules are those of contract 1.5 and D19. A failure is *ambiguous* if the request may have been carried out all the
same: it was sent and no complete response arrived, or the response was a 5xx without ``retryable``. After an ambiguous
failure only an idempotent call is retried. After a clear refusal that allows a retry, every call is.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from infrai_async.errors import APIError, InvalidArgument, RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from infrai_async.capabilities import Capability

_LARGEST: Final = sys.float_info.max  # an int may be larger, which no float can hold
_SLOWED_DOWN: Final = 0.25  # seconds
_SECONDS: Final = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII).fullmatch
_SHORTEST: Final = 0.001  # seconds; a shorter Retry-After would cause a busy loop, so it counts as absent


def _positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise InvalidArgument(f"{attribute.name} must be a finite number of seconds, 0 or more")


def _at_least_one(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument("max_attempts must be a whole number, 1 or more")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How many attempts a call gets, and how long it pauses between them.

    The pauses grow exponentially with full jitter: the n-th pause is drawn uniformly from zero to
    ``min(maximum, initial * 2**(n-1))`` seconds. If the response is neither 429 nor 503 and has a longer
    ``Retry-After``, the pause lasts that long instead, even beyond ``maximum``. The call raises the error of its last
    attempt at once if the pause does not fit into the rest of its ``timeout``, or if the pool's retry quota is spent.

    Contract D19 says which failures are retried at all. Three kinds of resends do not count towards ``max_attempts``:

    * after a 429 or 503 with ``Retry-After``: the whole pool pauses, and only the call's ``timeout`` sets a limit;
    * after a 404 or 405 that shows that the service has only the other generation of a route (contract D2): the
      request moves to that route, once per call, even with ``RetryPolicy.none()``;
    * after a 401, if ``api_key`` is a function that returns another key: once per call.

    Args:
        max_attempts: the maximum number of attempts, including the first. With 1, no failure is retried.
        initial: the upper bound of the first pause, in seconds.
        maximum: the upper bound of every pause that the policy chooses itself, in seconds.
        longest_pause: the upper bound of every pause that the service asks for, in seconds. If it asks for more, the
            calls that wait try again after this long, one at a time, until one is answered without a further pause.

    Raises:
        InvalidArgument: ``max_attempts`` is less than 1, or a length of time is negative or not finite.
    """

    max_attempts: int = attrs.field(default=4, validator=_at_least_one)
    initial: float = attrs.field(default=0.25, validator=_positive)
    maximum: float = attrs.field(default=8.0, validator=_positive)
    longest_pause: float = attrs.field(default=300.0, validator=_positive)

    @classmethod
    def none(cls) -> Self:
        """Return a policy without retries.

        Neither throttling nor a refused API key leads to another attempt. A request that meets an unknown route still
        moves to the other generation's route (contract D2), because the service has done nothing by then.

        Returns:
            A policy with ``max_attempts=1``.
        """
        return cls(max_attempts=1)

    def believe(self, seconds: float | None, attempts: int = 0) -> float | None:
        """Return how long to wait for a service that asks for a pause of ``seconds`` (contract D30).

        Such an attempt is not counted, so a service that asks for tiny pauses again and again gets longer ones, up to a
        quarter of a second: ``attempts`` is the number of those that the call has made before.
        """
        if seconds is None:
            return None
        return max(min(seconds, self.longest_pause), min(_SLOWED_DOWN, _SHORTEST * 2.0 ** min(attempts, 64)))

    def pause(self, failures: int, chance: float) -> float:
        """Return the pause after a failed attempt.

        Args:
            failures: the number of failed attempts so far, 1 or more.
            chance: a random number from 0 to 1.

        Returns:
            The pause in seconds.
        """
        return chance * min(self.maximum, self.initial * 2.0 ** min(failures - 1, 64))


@attrs.frozen
class RetryDecision:
    """The consequence of one failed attempt.

    Attributes:
        ambiguous: whether the request may have been carried out.
        retry: whether the request may be retried.
        throttle: the seconds for which all calls must wait, because the service asks for it. The whole pool pauses,
            and the attempt is not counted. ``None`` if the service does not ask for that.
        after: the minimum pause before a retry that the response asks for, in seconds.
    """

    ambiguous: bool
    retry: bool
    throttle: float | None = None
    after: float = 0.0


def decide_without_response(capability: Capability[Any], error: TransportError, *, sent: bool) -> RetryDecision:
    """Decide after an attempt without a complete response. After a timeout no time is left for a retry."""
    retry = (not sent or capability.resendable) and error._repeatable and not isinstance(error, TimeoutError)
    return RetryDecision(ambiguous=sent, retry=retry)


def decide_on_error(capability: Capability[Any], error: APIError, retry_after: float | None) -> RetryDecision:
    """Decide after a response that is an error."""
    status, retryable = error.status, error.retryable
    ambiguous = status >= 500 and retryable is None
    if status == 402:
        return RetryDecision(ambiguous=False, retry=False)  # only the caller can pay (contract 1.4)
    retry = (status == 429 or (ambiguous and capability.resendable)) if retryable is None else retryable
    throttle = retry_after if status in (429, 503) else None
    return RetryDecision(ambiguous, retry, throttle, after=retry_after or 0.0)


def throttled_error(said: APIError | None, seconds: float, time_limit: str) -> APIError:
    """Return the error of a call that meets another one's pause: what the service ``said`` to that one.

    Args:
        said: the error of the call that the service throttled, if it is known.
        seconds: the rest of the pause.
        time_limit: the time limit of the call, as a message names it.
    """
    said = said or RateLimitError(status=429, code="RATE_LIMITED", retryable=True)
    error = type(said)(
        f"the service asked for a pause that ends in {seconds:.3g} s, after {time_limit}",
        status=said.status,
        code=said.code,
        hint=said.hint,
        retryable=said.retryable,
    )
    if isinstance(error, RateLimitError | ServerError):
        error.retry_after = seconds
    return error


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the pause that a response asks for, in seconds; ``None`` if it is absent, in the past or malformed (D30).

    ``Retry-After-Ms`` holds milliseconds and comes first. ``Retry-After`` holds whole or fractional seconds, or an HTTP
    date.
    """
    seconds = _number(headers.get("Retry-After-Ms", "")) / 1000
    if not seconds >= _SHORTEST and (text := headers.get("Retry-After")) is not None:
        seconds = _number(text)
        if math.isnan(seconds):
            seconds = _until(text, now)
    return seconds if seconds >= _SHORTEST else None


def _number(text: str) -> float:
    """Return the number in a header, infinity if it has too many digits; not a number for any other text."""
    text = text.strip()
    number = float(text) if _SECONDS(text) else math.nan
    return math.nan if math.isinf(number) and not text.isdigit() else number


def _until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now) / timedelta(seconds=1)
