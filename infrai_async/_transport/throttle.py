"""What holds calls back: places in the pool, the service's pauses, and the rate that it was found to stand."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from infrai_async._protocol.flow import Closed, ThrottledPastDeadline
from infrai_async._protocol.rate import Gate, RateEstimator
from infrai_async._transport.call_state import Waiting
from infrai_async._transport.loop_session import call_later

if TYPE_CHECKING:
    from infrai_async._transport.call_state import CallState
    from infrai_async._transport.limiter import CapacityLimiter
    from infrai_async._transport.loop_session import LoopSession
    from infrai_async._transport.sessions import LoopSessions


class AdmissionControl:
    """Lets calls start: as they come, or one after another while the service pushes back.

    Gate and rate are points in time, shared by every loop. Each loop lets its own calls start in the order in which
    they came, by one timer.
    """

    def __init__(self, limiter: CapacityLimiter, sessions: LoopSessions) -> None:
        self._limiter = limiter
        self._sessions = sessions
        self._gate = Gate()
        self._estimator = RateEstimator()
        self._lock = threading.Lock()
        self._queues: dict[asyncio.AbstractEventLoop, deque[asyncio.Future[None]]] = {}

    @property
    def held_seconds(self) -> float:
        """How long the service has kept calls waiting so far."""
        return max(0.0, self._gate.held_seconds - max(0.0, self._gate.opens_at - time.monotonic()))

    def admit_at_once(self) -> bool:
        """Take a place if there is nothing to wait for."""
        if self._estimator.limited:
            return False
        taken = self._limiter.acquire_nowait()
        if taken == 1:
            self._note_first_start()
        return taken > 0

    async def admit(self, state: CallState) -> ThrottledPastDeadline | Closed | None:
        """Wait for a place and for one's turn; ``None`` with the place taken, else why there is none."""
        if (refused := self._refused(state)) is not None:
            return refused
        state.note_wait(Waiting.PLACE)
        if not await self._limiter.acquire():
            return Closed()
        try:
            refused = await self._wait_for_turn(state) if self._estimator.limited else None
        except BaseException:
            self._limiter.release()
            raise
        if refused is not None:
            self._limiter.release()
        elif self._limiter.taken == 1:
            self._note_first_start()
        return refused

    def throttle(self, throttled: CallState, seconds: float) -> None:
        """Let no call start for so long, and end those that wait if their time is up before.

        Args:
            throttled: the call that the service has answered so; its flow decides whether it waits.
            seconds: how long.
        """
        now = time.monotonic()
        with self._lock:
            self._gate.close(now + seconds, now)
            self._estimator.slow_down(now, now + seconds, self._sessions.succeeded(), throttled.sent_at)
        here = asyncio.get_running_loop()
        for session in self._sessions.all():
            if session.loop is here:
                self._refuse_late_calls(session, throttled)
            else:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    session.loop.call_soon_threadsafe(self._refuse_late_calls, session, throttled)

    def _note_first_start(self) -> None:
        """Note that a call starts while no other is under way."""
        self._estimator.start_counting(time.monotonic(), self._sessions.succeeded())

    # --- whose deadline comes first ---

    def _refused(self, state: CallState) -> ThrottledPastDeadline | None:
        now, opens_at = time.monotonic(), self._gate.opens_at
        return ThrottledPastDeadline(opens_at - now) if opens_at > now and opens_at > state.call.deadline else None

    def _refuse_late_calls(self, session: LoopSession, throttled: CallState) -> None:
        opens_at = self._gate.opens_at
        for state in session.calls:
            if not state.sending and state.call.deadline < opens_at and state is not throttled:
                state.refuse(opens_at)

    # --- whose turn it is ---

    async def _wait_for_turn(self, state: CallState) -> ThrottledPastDeadline | None:
        state.note_wait(Waiting.GATE)
        requeued = False
        while not requeued or self._gate.opens_at > time.monotonic():  # it may be closed anew just then
            if (refused := self._refused(state)) is not None:
                return refused
            await self._wait_in_queue(requeued=requeued)
            requeued = True
        return None

    async def _wait_in_queue(self, *, requeued: bool) -> None:
        """Wait in the loop's queue; ``again`` takes whose turn the gate has cut off to the front."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        queue = self._queues.get(loop)
        if queue is None:
            for gone in [known for known in tuple(self._queues) if known.is_closed()]:
                self._queues.pop(gone, None)
            queue = self._queues[loop] = deque()
        if requeued:
            queue.appendleft(waiter)
        else:
            queue.append(waiter)
        if len(queue) == 1:
            self._start_queued()
        await waiter

    def _start_queued(self) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queues[loop]
        while queue:
            now = time.monotonic()
            delay = max(self._gate.opens_at, self._estimator.next_start) - now
            if delay > 0:
                call_later(loop, delay, self._start_queued)
                return
            waiter = queue.popleft()
            if not waiter.done():
                with self._lock:
                    self._estimator.start(now, len(queue))
                waiter.set_result(None)
        del self._queues[loop]

    def after_fork(self) -> None:
        """Begin afresh in a forked child: who waited does so in the parent."""
        self._queues, self._lock = {}, threading.Lock()
