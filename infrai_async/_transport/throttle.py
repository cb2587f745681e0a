"""Admission of calls: they wait for a slot in the pool, for the end of a pause, and for the rate limit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from infrai_async._protocol.flow import Closed, ThrottledPastDeadline
from infrai_async._protocol.rate import Gate, RateEstimator
from infrai_async._transport.call_state import Waiting
from infrai_async._transport.loop_session import call_later

if TYPE_CHECKING:
    from infrai_async._protocol.flow import Throttle
    from infrai_async._transport.call_state import CallState
    from infrai_async._transport.limiter import CapacityLimiter
    from infrai_async._transport.loop_session import LoopSession
    from infrai_async._transport.sessions import LoopSessions
    from infrai_async.errors import APIError


_PROBE_INTERVAL: Final = 0.05  # seconds between two looks at the call that tries alone


class AdmissionControl:
    """Decides when calls may start: at once, or one after another while the service throttles.

    If the service asks for a longer pause than the policy allows, one call at a time tries again afterwards, until one
    is answered without a further pause (D30).

    The gate and the rate are points in time that all event loops share. Each event loop starts its own calls in
    first-in, first-out order, with a single timer.

    Several threads may throttle or start calls concurrently, so the gate and the estimator change under a lock. Reading
    them takes none: a call that reads an old value is merely sent too early and throttled by the service, and the
    estimator ignores attempts that were sent before the last pause ended.
    """

    def __init__(self, limiter: CapacityLimiter, sessions: LoopSessions) -> None:
        self._limiter = limiter
        self._sessions = sessions
        self._gate = Gate()
        self._said: APIError | None = None  # the response that closed the gate
        self._estimator = RateEstimator()
        self._lock = threading.Lock()
        self._probing = False
        self._probe: CallState | None = None  # the call that tries alone
        self._probe_started = 0.0
        self._queues: dict[asyncio.AbstractEventLoop, deque[tuple[asyncio.Future[None], CallState]]] = {}

    @property
    def held_seconds(self) -> float:
        """The total time, in seconds, for which the service has paused the pool so far."""
        return max(0.0, self._gate.held_seconds - max(0.0, self._gate.opens_at - time.monotonic()))

    def admit_at_once(self) -> bool:
        """Acquire a slot if the call can start without waiting; return whether it can."""
        if self._estimator.limited:
            return False
        taken = self._limiter.acquire_nowait()
        if taken == 1:
            self._note_first_start()
        return taken > 0

    async def admit(self, state: CallState) -> ThrottledPastDeadline | Closed | None:
        """Wait for a slot and for the call's turn; return ``None``, or why the call is not admitted.

        An admitted call holds a slot.
        """
        if (refused := self._refused(state)) is not None:
            return refused
        state.note_wait(Waiting.SLOT)
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

    def throttle(self, throttled: CallState, step: Throttle) -> None:
        """Pause the pool, and end the waiting calls whose deadline is before the end of the pause.

        Args:
            throttled: the call that the service has throttled. Its own flow decides whether it waits.
            step: the length of the pause, and what the service said.
        """
        # The gate closes before the waiting calls are searched, and a call registers with its session before it checks
        # the gate. Whatever the threads do meanwhile, a call is found by the search or finds the gate closed itself.
        now = time.monotonic()
        opens_at = now + step.seconds
        with self._lock:
            if opens_at > self._gate.opens_at:
                self._gate.close(opens_at, now)
                self._said, self._probing, self._probe = step.error, step.probe, None
            self._estimator.slow_down(now, opens_at, self._sessions.succeeded(), throttled.sent_at)
        current_loop = asyncio.get_running_loop()
        for session in self._sessions.all():
            if session.loop is current_loop:
                self._refuse_late_calls(session, throttled)
            else:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    session.loop.call_soon_threadsafe(self._refuse_late_calls, session, throttled)

    def _note_first_start(self) -> None:
        """Record that a call starts while no other is in flight."""
        self._estimator.start_counting(time.monotonic(), self._sessions.succeeded())

    # --- calls whose deadline is before the end of the pause ---

    def _refused(self, state: CallState) -> ThrottledPastDeadline | None:
        now, opens_at = time.monotonic(), self._gate.opens_at
        late = opens_at > now and opens_at > state.call.deadline
        return ThrottledPastDeadline(opens_at - now, self._said) if late else None

    def _refuse_late_calls(self, session: LoopSession, throttled: CallState) -> None:
        for state in session.calls:
            if not state.sending and state is not throttled and (refused := self._refused(state)) is not None:
                state.refuse(refused)

    # --- the queue of each event loop ---

    async def _wait_for_turn(self, state: CallState) -> ThrottledPastDeadline | None:
        state.note_wait(Waiting.GATE)
        requeued = False
        # The gate may close again between the moment when this call's turn comes and the moment when its task runs.
        # It then waits once more, at the front of the queue, so that it keeps its place in the order.
        while not requeued or self._gate.opens_at > time.monotonic():
            if (refused := self._refused(state)) is not None:
                return refused
            await self._wait_in_queue(state, requeued=requeued)
            requeued = True
        return None

    async def _wait_in_queue(self, state: CallState, *, requeued: bool) -> None:
        """Wait in the event loop's queue; ``requeued`` calls wait at its front."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        queue = self._queues.get(loop)
        if queue is None:
            for closed in [known for known in tuple(self._queues) if known.is_closed()]:
                self._queues.pop(closed, None)
            queue = self._queues[loop] = deque()
        if requeued:
            queue.appendleft((waiter, state))
        else:
            queue.append((waiter, state))
        if len(queue) == 1:  # otherwise the timer of the earlier calls is running
            self._start_queued()
        await waiter

    def _start_queued(self) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queues[loop]
        while queue:
            waiter, state = queue[0]
            if not waiter.done():
                delay = self._start(state, len(queue) - 1)
                if delay > 0:
                    call_later(loop, delay, self._start_queued)
                    return
                waiter.set_result(None)
            queue.popleft()
        del self._queues[loop]

    def _start(self, state: CallState, waiting: int) -> float:
        """Start a call now and return 0, or return the seconds until that can be tried again."""
        now = time.monotonic()
        with self._lock:
            delay = max(self._gate.opens_at, self._estimator.next_start) - now
            if delay > 0:
                return delay
            if self._probing:
                if self._is_trying():
                    return _PROBE_INTERVAL
                if not self._has_proved_itself():
                    self._probe, self._probe_started = state, now
                    return 0.0
                self._probing, self._probe = False, None
                self._estimator.resume(now)
            self._estimator.start(now, waiting)
        return 0.0

    def _is_trying(self) -> bool:
        """Return whether the call that tries alone has not been sent yet, or waits for its response."""
        probe = self._probe
        if probe is None or probe.sending:
            return probe is not None
        return probe.sent_at < self._probe_started and any(probe in session.calls for session in self._sessions.all())

    def _has_proved_itself(self) -> bool:
        """Return whether the call that tried alone was answered, without a further pause."""
        probe = self._probe
        return probe is not None and probe.sent_at >= self._probe_started and probe.answered

    def after_fork(self) -> None:
        """Forget all waiting calls in a forked child process; they wait in the parent."""
        self._queues, self._probe, self._lock = {}, None, threading.Lock()
