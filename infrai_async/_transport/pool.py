"""The connection pool, which drives every call.

A pool belongs to one client and serves any number of event loops, one after another or concurrently. Each event loop
gets a session of its own; the API key, the concurrency limit, throttling and the retry quota are shared. ``Pool.run``
makes the attempts of a call. If an attempt does not plainly succeed, the call's flow decides about the next step
(``_protocol.flow``).
"""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import Coroutine
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

import aiohttp
import attrs
from yarl import URL

from infrai_async._protocol import flow as call_flow
from infrai_async._protocol.config import host_and_port
from infrai_async._protocol.flow import (
    Call,
    Closed,
    Flow,
    NoteResponse,
    Pause,
    RefreshKey,
    Result,
    RouteMemory,
    Throttle,
    ThrottledPastDeadline,
)
from infrai_async._protocol.rate import RetryQuota
from infrai_async._protocol.request import Request
from infrai_async._protocol.response import LARGEST_RESPONSE
from infrai_async._transport.call_state import CallState, Waiting
from infrai_async._transport.connector import (
    ConnectionTrace,
    environment_proxy,
    trace_of_attempt,
)
from infrai_async._transport.failures import as_transport_error
from infrai_async._transport.keys import ApiKey, KeySource
from infrai_async._transport.limiter import CapacityLimiter
from infrai_async._transport.sessions import LoopSessions
from infrai_async._transport.stats import Stats
from infrai_async._transport.throttle import AdmissionControl
from infrai_async._transport.tls import tls_context
from infrai_async.errors import ConfigurationError, InfraiError, without_frames

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Listener, Reporter
    from infrai_async._transport.headers import HeaderSet
    from infrai_async._transport.loop_session import LoopSession
    from infrai_async.models import Model, Page

T = TypeVar("T", bound="Model | Page[Any]")

_LARGEST_INLINE: Final = 2**20  # bytes; aiohttp warns about larger bodies that are passed as bytes
_log: Final = logging.getLogger("infrai_async")
_pools: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()


@attrs.frozen(kw_only=True)
class PoolSettings:
    """The settings of a pool; ``origin`` is the base URL without ``/v1``."""

    origin: str
    api_key: KeySource = attrs.field(repr=False)
    max_concurrency: int
    session: aiohttp.ClientSession | None = None
    proxy: str | URL | None = attrs.field(default=None, repr=False)
    trust_env: bool = False
    ssl: SSLContext | None = None
    allow_http: bool = False
    listener: Listener | None = attrs.field(default=None, repr=False)


@attrs.frozen
class _Done(Generic[T]):
    """The end of a flow, with the result of the call."""

    value: T


class Pool:
    """Makes the calls of one client, within its limits."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.listener = settings.listener
        self._key = ApiKey(settings.api_key)
        context = functools.partial(tls_context, settings.origin, settings.ssl)
        context()  # so that it is made with the client, which programs mostly create before an event loop runs
        address = host_and_port(settings.origin)
        self._sessions = LoopSessions(settings.session, functools.partial(_proxy, settings), context, address)
        self._limiter = CapacityLimiter(settings.max_concurrency)
        self._admission = AdmissionControl(self._limiter, self._sessions)
        self._quota = RetryQuota()
        self._routes = RouteMemory()
        self._origin = URL(settings.origin, encoded=True)
        self._prefix = self._origin.raw_path.rstrip("/")
        self._lock = threading.Lock()
        _pools.add(self)

    # --- a call ---

    async def run(self, call: Call[T], headers: HeaderSet, reporter: Reporter | None = None) -> T:
        """Make a call: one attempt and, unless that plainly succeeds, the further steps that its flow asks for."""
        request = call.request(self._routes.generation)
        if reporter is not None:
            reporter.started()
        session = self._sessions.here() or self._open_session(call, request)
        state = session.enter(call, reporter)
        flow: Flow[T] | None = None
        response = body = None
        succeeded = False
        try:
            while True:
                admitted = call.scopes is None and self._key.current is not None and self._admission.admit_at_once()
                try:
                    result: Result | InfraiError = None if admitted else await self._admit(session, state)
                    if result is None:
                        admitted = True
                        response = await self._send(session, state, request, headers)
                        data = response.content
                        body = state.trace.headers.redact(data.read_nowait() if data.is_eof() else await _read(data))
                        if flow is None and (value := _read_quickly(call, state, response, body)) is not None:
                            succeeded = True
                            return value
                        result = state.with_response(response, body)
                except BaseException as error:
                    if (result := _as_result(session, state, error)) is None:
                        raise
                finally:
                    if admitted:  # in this order: the next call with the slot must not meet the old connection
                        state.end_attempt(response, body)
                        self._limiter.release()
                    response = body = None  # a traceback that refers to this frame must not keep the response alive
                flow = flow or self._begin_flow(call, request, state.note_response)
                step = await self._advance(flow, session, state, result)
                if isinstance(step, _Done):
                    succeeded = True
                    return step.value
                request = step
        finally:
            session.leave(state, succeeded)

    def _open_session(self, call: Call[T], request: Request) -> LoopSession:
        """Open a session for the running event loop, or raise as for a call that was not sent."""
        try:
            session = self._sessions.open()
        except ConfigurationError as error:
            self._begin_flow(call, request, _ignore).throw(error)
            raise
        if session is None:
            self._begin_flow(call, request, _ignore).send(Closed())
            raise AssertionError("a flow must end when the client is closed")
        return session

    async def _admit(self, session: LoopSession, state: CallState) -> ThrottledPastDeadline | Closed | None:
        """Wait for a slot, the end of throttling, and the API key; return ``None``, or why the call is not admitted.

        An admitted call holds a slot.
        """
        call = state.call
        if call.scopes is not None:
            call.scopes.check(time.monotonic())
        refused = await self._admission.admit(state)
        if refused is not None:
            return refused
        try:
            if self._key.current is None and not call.capability.public:
                state.note_wait(Waiting.KEY)
                await self._key.find(session.key_lock, refused=None)
            if call.scopes is not None:
                call.scopes.check(time.monotonic())
        except BaseException:
            self._limiter.release()
            raise
        return None

    def _send(
        self, session: LoopSession, state: CallState, request: Request, headers: HeaderSet
    ) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Begin an attempt, and return the coroutine that completes it.

        It is a plain method because each further coroutine adds a frame to every suspension of the call.
        """
        key = None if state.call.capability.public else self._key.current
        template = headers.template(key, request.body is not None)
        trace = ConnectionTrace(state.counters, template, request.idempotency_key, session.borrowed)
        trace_of_attempt.set(trace)
        state.begin_attempt(key, trace, request.is_retry)
        if state.reporter is not None:
            state.reporter.sent(request.method, self.settings.origin, request.target, state.waited)
        return session.request(
            request.method,
            self._url(request.target),
            data=None if request.body is None else _payload(request.body),
            headers=template.to_pass(request.idempotency_key) if template.complete is None else None,
            allow_redirects=False,
        )

    def _url(self, target: str) -> URL:
        origin = self._origin
        if "?" not in target:
            return origin.with_path(self._prefix + target, encoded=True)
        path, _, query = target.partition("?")
        return URL.build(
            scheme=origin.scheme,
            authority=origin.raw_authority,
            path=self._prefix + path,
            query_string=query,
            encoded=True,
        )

    # --- the steps of a flow ---

    def _begin_flow(self, call: Call[T], request: Request, note_response: NoteResponse) -> Flow[T]:
        """Return a flow that is waiting for the result of the call's first request."""
        flow = call_flow.run(call, request, note_response, self._routes)
        next(flow)
        return flow

    async def _advance(
        self, flow: Flow[T], session: LoopSession, state: CallState, result: Result | InfraiError
    ) -> Request | _Done[T]:
        """Send the flow the result of an attempt, and perform its steps up to the next request or the end."""
        try:
            while True:
                step = flow.throw(result) if isinstance(result, InfraiError) else flow.send(result)
                if isinstance(step, Request):
                    return step
                try:
                    result = await self._perform(session, state, step)
                except BaseException as error:
                    if (result := _as_result(session, state, error)) is None:
                        raise
        except StopIteration as stop:
            return _Done(stop.value)

    async def _perform(
        self, session: LoopSession, state: CallState, step: Pause | Throttle | RefreshKey
    ) -> bool | None:
        reporter = state.reporter
        match step:
            case Throttle():
                self._admission.throttle(state, step)
                if reporter is not None:
                    reporter.throttled(step.seconds)
                return None
            case RefreshKey():
                state.note_wait(Waiting.KEY_REFRESH)
                refused = state.key
                state.note_refused_key()
                return self._key.renewable and await self._key.find(session.key_lock, refused) != refused
            case Pause(seconds, capability, reason):
                # Calls in several threads share the quota, so taking from it is locked. A closed client retries
                # nothing: a call that was in flight during ``close`` ends here with the error of its last attempt.
                with self._lock:
                    if self._sessions.closed or not self._quota.take(self._sessions.succeeded()):
                        return False
                _log.info("%s: retrying in %.3f s after %s", capability, seconds, reason)
                if reporter is not None:
                    reporter.retrying(reason, seconds)
                state.note_wait(Waiting.PAUSE)
                await asyncio.sleep(seconds)
                return True

    # --- the pool as a whole ---

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client's pool of connections cannot be pickled or copied: make a client in each process")

    def stats(self) -> Stats:
        """Return the current counters."""
        # Without a lock: a signal handler may make a call in the middle of this, and would deadlock.
        limiter, throttled = self._limiter, self._admission.held_seconds
        return self._sessions.counters().stats(
            in_flight=limiter.taken, waiting=limiter.waiting, throttled_seconds=throttled
        )

    def refuse(self) -> None:
        """Refuse new calls and calls that wait for a slot; callable from any thread."""
        self._sessions.refuse()
        self._limiter.close()

    async def close(self, grace: float) -> None:
        """Refuse new calls, give running ones ``grace`` seconds, and close the sessions of all event loops."""
        self.refuse()
        await self._sessions.close(grace)

    def after_fork(self) -> None:
        """Reset the pool in a forked child process, which must not touch the parent's connections.

        Locks are replaced, because another thread of the parent may have held them at the moment of the fork.
        """
        self._sessions.after_fork()
        self._limiter.reset()
        self._admission.after_fork()
        self._lock = threading.Lock()


def _ignore(*_: object) -> None:
    """Do nothing."""


def _read_quickly(call: Call[T], state: CallState, response: aiohttp.ClientResponse, body: bytes | None) -> T | None:
    """Return the result of the call if the response is in the expected form, else ``None`` without side effects."""
    if body is None or response.status != 200:
        return None
    value = call.reader.quick(call.capability, body)
    if value is not None:
        state.note_response(value.metadata)
    return value


def _as_result(session: LoopSession, state: CallState, error: BaseException) -> Result | InfraiError:
    """Return the exception as a result for the flow; ``None`` if it must propagate unchanged."""
    if isinstance(error, asyncio.CancelledError):
        if (result := state.resolve_cancellation(session.address)) is None:
            without_frames(error)  # a timeout of the caller's chains it, and aiohttp's frames hold what was received
        return result
    if isinstance(error, InfraiError):
        return error
    if isinstance(error, aiohttp.ClientError | OSError):
        transport, not_sent = as_transport_error(error, session.address)
        return state.without_response(transport, not_sent=not_sent)
    if isinstance(error, RuntimeError) and session.http.closed:
        return ConfigurationError("session was closed by its owner: keep it open for as long as the client is used")
    return None


def _proxy(settings: PoolSettings) -> str | URL | None:
    return settings.proxy or (environment_proxy(settings.origin) if settings.trust_env else None)


def _payload(body: bytes) -> bytes | io.BytesIO:
    return io.BytesIO(body) if len(body) > _LARGEST_INLINE else body


async def _read(content: aiohttp.StreamReader) -> bytes | None:
    """Return the body; ``None`` if it is larger than any valid response."""
    chunks, size = [], 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > LARGEST_RESPONSE:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _after_fork() -> None:
    for pool in tuple(_pools):
        pool.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
