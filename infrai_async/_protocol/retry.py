"""Whether to send again, and when: decisions without I/O; time and chance are arguments.

The rules are CONTRACT.md 1.5 and D19: a failure is *ambiguous* when the request may have been carried out all the
same (it was sent and no complete answer came, or a 5xx that says nothing of trying again). After such a one only
what is safe to repeat goes out again; after a clear refusal that invites it, anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from infrai_async.errors import APIError, InvalidArgument, TransportError

if TYPE_CHECKING:
    from infrai_async.capabilities import Capability

_SOONEST: Final = 0.001  # a Retry-After below a millisecond would be a busy loop: it counts as absent


def _positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidArgument(f"{attribute.name} must be a finite number of seconds, not negative")


def _at_least_one(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgument("max_attempts must be a whole number, 1 or more")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often a call is sent, and how long it pauses in between.

    The n-th pause is drawn evenly between zero and ``min(maximum, initial * 2**(n-1))`` ("full jitter"), and is never
    shorter than a ``Retry-After`` says. A pause that does not fit in the call's ``timeout`` raises the error in hand.

    Args:
        max_attempts: how often a call is sent in all; a 429 with ``Retry-After`` does not count.
        initial: the first pause's upper bound in seconds.
        maximum: every pause's upper bound in seconds.

    Raises:
        InvalidArgument: ``max_attempts`` below one, or a length of time that is negative or not finite.
    """

    max_attempts: int = attrs.field(default=4, validator=_at_least_one)
    initial: float = attrs.field(default=0.25, validator=_positive)
    maximum: float = attrs.field(default=8.0, validator=_positive)

    @classmethod
    def none(cls) -> Self:
        """Return the policy that never sends a call twice."""
        return cls(max_attempts=1)

    def pause(self, failures: int, chance: float) -> float:
        """Return the pause after that many failures, in seconds; ``chance`` lies between 0 and 1."""
        return chance * min(self.maximum, self.initial * 2.0 ** min(failures - 1, 64))


@attrs.frozen
class RetryDecision:
    """What follows from one failed attempt.

    Attributes:
        ambiguous: whether the request may have been carried out.
        again: whether it may be sent again.
        hold: seconds for which the service asks everyone to wait; the whole pool does, and the attempt is not counted.
        after: the least pause before sending again that the answer asks for, in seconds.
    """

    ambiguous: bool
    again: bool
    hold: float | None = None
    after: float = 0.0


def decide_without_response(capability: Capability[Any], error: TransportError, *, sent: bool) -> RetryDecision:
    """Judge an attempt that got no complete answer; one whose time ran out has none left for another."""
    again = (not sent or capability.resendable) and not isinstance(error, TimeoutError)
    return RetryDecision(ambiguous=sent, again=again)


def decide_on_error(capability: Capability[Any], error: APIError, retry_after: float | None) -> RetryDecision:
    """Judge an answer that refused."""
    status, retryable = error.status, error.retryable
    ambiguous = status >= 500 and retryable is None
    if status == 402:
        return RetryDecision(ambiguous=False, again=False)  # paying is the caller's to do (CONTRACT.md 1.4)
    again = (status == 429 or (ambiguous and capability.resendable)) if retryable is None else retryable
    hold = retry_after if status in (429, 503) else None
    return RetryDecision(ambiguous, again, hold, after=retry_after or 0.0)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read ``Retry-After``: whole or fractional seconds, or an HTTP date; ``None`` when absent, past or unreadable."""
    text = headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _until(text, now)
    return seconds if _SOONEST <= seconds < math.inf else None


def _until(text: str, now: datetime) -> float:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - now) / timedelta(seconds=1)
