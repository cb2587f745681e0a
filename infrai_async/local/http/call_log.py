"""The most recent calls, for the dashboard: the capability and the outcome of each, without its parameters."""

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
    """One completed call, with the figures from its response headers."""

    at: datetime
    capability: str
    account: str
    status: int
    cost: str
    milliseconds: str
    request_id: str


class RecentCalls:
    """Remember the last hundred calls, in memory only."""

    def __init__(self) -> None:
        self._calls: deque[RecentCall] = deque(maxlen=_MOST)

    def note(self, request: web.BaseRequest, answer: web.StreamResponse) -> None:
        """Remember a request, if it addressed a capability."""
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
        """Return the calls, newest first."""
        return tuple(reversed(self._calls))
