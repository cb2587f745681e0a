"""The last calls, for a person to see: what was called and what came of it, never with what."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import attrs
from aiohttp import web

CAPABILITY: Final = web.RequestKey("capability", str)
ACCOUNT: Final = web.RequestKey("account", str)
_MOST: Final = 100


@attrs.frozen(kw_only=True)
class RecentCall:
    """One call that was answered; its figures are as its answer's headers say them."""

    at: datetime
    capability: str
    account: str
    status: int
    cost: str
    milliseconds: str
    request_id: str


class RecentCalls:
    """Remembers the last hundred, in memory alone."""

    def __init__(self) -> None:
        self._calls: deque[RecentCall] = deque(maxlen=_MOST)

    def note(self, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Remember a request that named a capability."""
        if CAPABILITY not in request:
            return
        self._calls.append(
            RecentCall(
                at=datetime.now(UTC),
                capability=request[CAPABILITY],
                account=request.get(ACCOUNT, ""),
                status=answer.status,
                cost=answer.headers.get("X-Infrai-Cost-Usd", "0"),
                milliseconds=answer.headers.get("X-Infrai-Latency-Ms", "0"),
                request_id=answer.headers.get("X-Request-Id", ""),
            )
        )

    def newest(self) -> Sequence[RecentCall]:
        """Return the calls, the newest first."""
        return tuple(reversed(self._calls))
