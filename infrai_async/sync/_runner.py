"""The event loop behind a blocking client, and the way into it.

A call crosses by one ``call_soon_threadsafe`` and comes back by one lock, which the waiting thread acquires and the
call's last step releases: a third of what the portal's own calls cost. The portal is there for the loop's life.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import encodings.idna  # noqa: F401 - for the same reason as anyio below, when a host is looked up
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import Context
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

# All that the loop's thread would import otherwise: a child forked in the middle of it would wait for ever.
import anyio
import anyio._backends._asyncio
from anyio.from_thread import BlockingPortal

import infrai_async._protocol.decode  # noqa: F401 - as anyio above
from infrai_async._transport.loop_session import run_one_step
from infrai_async.errors import ClientClosedError, ConfigurationError, InfraiError, TransportError

R = TypeVar("R")
Opened: TypeAlias = "Future[tuple[Loop, BlockingPortal]]"

_POLL: Final = 0.1 if sys.platform == "win32" else -1.0  # seconds; on Windows only a wait that ends sees Ctrl-C
_LONGEST: Final = 0.1 if sys.platform == "win32" else threading.TIMEOUT_MAX
_SHUTDOWN_SECONDS: Final = 2.0  # seconds for a loop to end, beyond the grace that its calls were given
_OWN_LOOP: Final = (
    "a blocking client cannot wait in its own event loop, as in a function that it calls there (api_key): "
    "use AsyncInfrai in it, or another client"
)
_runners: Final[weakref.WeakSet[Runner]] = weakref.WeakSet()
_left_behind: Final[list[object]] = []
_exiting: Final = threading.Event()


class ThreadCall(Generic[R]):
    """One call on its way through the loop, while a thread waits for what becomes of it."""

    __slots__ = ("_done", "_start", "_task", "abandoned", "error", "over", "value")

    def __init__(self, start: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._start = start
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._task: asyncio.Task[None] | None = None
        self.value: R
        self.error: BaseException | None = None
        self.over = False  # there is a value, or an error
        self.abandoned = False  # nobody waits any longer

    # --- in the thread that waits ---

    def cross(self, loop: Loop, seconds: float | None = None) -> None:
        """Run it in the loop and wait until it is over, given up, or ``seconds`` have passed.

        It is not over afterwards where the loop had no time left for it.
        """
        __tracebackhide__ = True
        self.abandoned = False
        try:
            loop.call_soon_threadsafe(self._begin, loop)
            self._wait(seconds)
        except BaseException as error:  # Ctrl-C, or what else a signal's handler raises
            if not isinstance(error, RuntimeError) or not loop.is_closed():
                self._cancel_from_thread(loop)
                raise

    def _wait(self, seconds: float | None) -> None:
        __tracebackhide__ = True
        if seconds is None:
            while not self._done.acquire(True, _POLL):
                pass
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._done.acquire(True, min(left, _LONGEST)):
            pass

    def _cancel_from_thread(self, loop: Loop) -> None:
        self.abandoned = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._cancel)

    def run_refusal(self) -> None:
        """Take the one step that a call of a closed client has: it ends in its refusal, and needs no loop for it."""
        self.over = True
        coroutine = self._start()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            self.error = error
        else:
            coroutine.close()
            self.error = ClientClosedError("the client is closed")

    # --- in whoever ends the loop ---

    def give_up(self) -> None:
        """Send the thread away that waits: the loop has ended, or is stuck."""
        if self._task is None:
            self._release()
        else:
            self.end("the client was closed before the response arrived")

    def end(self, why: str) -> None:
        """Let the waiting thread raise an error."""
        if not self.over:
            self.error, self.over = TransportError(why, outcome="maybe_applied"), True
            self._release()

    def _release(self) -> None:
        self.abandoned = True
        with contextlib.suppress(RuntimeError):  # the answer comes at the same moment
            self._done.release()

    # --- in the loop ---

    def _begin(self, loop: Loop) -> None:
        if self.abandoned:
            return
        if loop.ending:
            self._release()
        else:
            self._task = loop.create_task(self._complete())

    async def _complete(self) -> None:
        try:
            self.value = await self._start()
        except BaseException as error:  # noqa: BLE001 - all of them are the waiting thread's
            self.error = error
        self.over = True
        if not self.abandoned:
            self._done.release()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class LoopThread:
    """An event loop in a thread of its own, which runs for as long as its portal is open."""

    def __init__(self) -> None:
        self._opened: Opened = Future()
        # A context of its own: that of a notebook's cell would tell anyio that a loop runs here already.
        self._thread = threading.Thread(
            target=Context().run, args=(_serve, self._opened), name="infrai-async", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread is to be had
            self._opened.set_exception(error)

    def loop(self) -> Loop:
        """Return the loop, once it runs.

        Raises:
            TransportError: it could not start.
        """
        failure = self._opened.exception()
        if failure is not None:
            raise TransportError(f"the client's event loop could not be started: {failure}") from failure
        return self._opened.result()[0]

    @property
    def ident(self) -> int | None:
        """What ``threading.get_ident`` says in this thread; another one's may be the same when this has ended."""
        return self._thread.ident

    def is_current(self) -> bool:
        """Return whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    @property
    def ended(self) -> bool:
        """Whether the loop runs no longer, or could not start."""
        return self._opened.done() and (self._opened.exception() is not None or not self._thread.is_alive())

    def stop(self) -> None:
        """Let the loop end: it cancels its tasks and closes its sessions."""
        self._opened.add_done_callback(_stop)

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(max(0.0, seconds))


class Loop(asyncio.SelectorEventLoop):
    """An event loop that can still look a name up when the main thread has ended, and executors take no more work."""

    ending = False  # what began now would not be cancelled with the rest

    def run_in_executor(  # type: ignore[override] # the base class is stricter than its own documentation
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in the executor, or without one in a thread of its own."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: Future[Any] = Future()
        work = partial(_work, future, func, *args)
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:  # late in an exit there are no threads either, and nobody else whom this would block
            work()
        return asyncio.wrap_future(future, loop=self)


def _work(future: Future[Any], func: Callable[..., object], *args: object) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(func(*args))
    except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
        future.set_exception(error)


def _serve(opened: Opened) -> None:
    try:
        anyio.run(_stay_open, opened, backend_options={"loop_factory": Loop})
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)


async def _stay_open(opened: Opened) -> None:
    loop = cast("Loop", asyncio.get_running_loop())
    async with BlockingPortal() as portal:
        opened.set_result((loop, portal))
        await portal.sleep_until_stopped()
    loop.ending = True


def _stop(opened: Opened) -> None:
    if opened.exception() is None:  # else it never ran
        loop, portal = opened.result()
        with contextlib.suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(lambda: run_one_step(portal.stop()))


class Runner:
    """Runs coroutines for threads that wait for them, in one loop that starts with the first of them.

    The loop ends with ``close``, with the runner, or with the interpreter; a forked child starts one of its own.
    """

    def __init__(self) -> None:
        self._closed = False
        self._reset()
        _runners.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._loop: Loop | None = None
        self._ident: int | None = None
        self._thread_calls: set[ThreadCall[Any]] = set()
        self._finalizer: weakref.finalize[..., Runner] | None = None

    def run(self, start: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a coroutine, made by ``start``, to its end: return what it returns, raise what it raises.

        Raises:
            ConfigurationError: called from the client's own loop, which cannot wait for itself.
            TransportError: the coroutine was cancelled in the loop.
        """
        __tracebackhide__ = True
        thread_call = ThreadCall(start)
        try:
            self._thread_calls.add(thread_call)  # before the look at the loop: whoever ends that one finds this waiting
            while not thread_call.over:
                loop = self._loop
                if loop is None or _thread.get_ident() == self._ident:
                    loop = self._open()
                if loop is None:
                    thread_call.run_refusal()
                else:
                    thread_call.cross(loop)
                    if not thread_call.over and self._loop is loop:
                        self._loop = None  # it has ended: by closing, or by the interpreter's exit
        finally:
            self._thread_calls.discard(thread_call)
        if thread_call.error is None:
            return thread_call.value
        error, thread_call.error = _as_raised(thread_call.error), None
        try:
            raise error
        finally:
            del error  # its traceback has this frame: they would keep each other

    def _open(self) -> Loop | None:
        """Return the loop, started if need be; ``None`` when there will be none any more."""
        if _exiting.is_set() and threading.current_thread().daemon:
            threading.Event().wait()  # nothing it could say would reach anybody
        if not self._closed and (self._thread is None or self._thread.ended):
            # Ctrl-C reaches the main thread alone: in another, it cannot come between a loop and the note of it.
            starter = threading.Thread(target=self._start)
            try:
                starter.start()
            except RuntimeError as error:  # no thread is to be had
                raise TransportError(f"the client's event loop could not be started: {error}") from error
            starter.join()
        thread = self._thread
        if self._closed or thread is None:
            return None
        self.check_outside()
        self._loop, self._ident = thread.loop(), thread.ident
        return self._loop

    def check_outside(self) -> None:
        """Make sure that the caller is not in the loop, which cannot wait for itself.

        Raises:
            ConfigurationError: it is.
        """
        thread = self._thread
        if thread is not None and thread.is_current():
            raise ConfigurationError(_OWN_LOOP)

    def _start(self) -> None:
        with self._lock:
            if not self._closed and (self._thread is None or self._thread.ended):
                self._thread = LoopThread()
                self._finalizer = weakref.finalize(self, self._thread.stop)
                self._finalizer.atexit = False

    def close(self, shut_down: Callable[[float], Coroutine[Any, Any, None]], grace: float) -> None:
        """Refuse what comes, run ``shut_down`` in the loop, and end the loop; calling it again does nothing more.

        Args:
            shut_down: closes what lives in the loop, within so many seconds; called again with zero on Ctrl-C.
            grace: seconds that it takes at most; a loop that is stuck longer is left alone.
        """
        with self._lock:
            thread, self._closed, self._loop = self._thread, True, None
        if thread is None or thread.ended:
            return
        try:
            self._run_shutdown(thread, shut_down, grace)
        except BaseException:
            self._run_shutdown(thread, shut_down, 0.0)
            raise
        finally:
            thread.stop()
            thread.join(_SHUTDOWN_SECONDS)
            for other in tuple(self._thread_calls):
                other.give_up()

    def _run_shutdown(
        self, thread: LoopThread, shut_down: Callable[[float], Coroutine[Any, Any, None]], grace: float
    ) -> None:
        thread_call = ThreadCall(partial(shut_down, grace))
        try:
            self._thread_calls.add(thread_call)
            thread_call.cross(thread.loop(), grace + _SHUTDOWN_SECONDS)
        finally:
            self._thread_calls.discard(thread_call)

    def end(self) -> LoopThread | None:
        """Let the loop end at exit, and return its thread, if there is one; the next call would start another."""
        with self._lock:
            thread, self._thread, self._loop = self._thread, None, None
        for thread_call in tuple(self._thread_calls):
            thread_call.abandoned = True  # of daemon threads, which had better not wake to say so
        if thread is not None:
            thread.stop()
        return thread

    def after_fork(self) -> None:
        """Begin afresh in a forked child, where the thread does not exist: what the parent has stays the parent's."""
        _left_behind.append(
            (self._thread, self._loop, self._thread_calls)
        )  # kept alive: collecting them would complain
        for thread_call in self._thread_calls:  # of this very thread, which forked in a signal's handler
            thread_call.end("the process was forked during this call, which goes on in the parent")
        if self._finalizer is not None:
            self._finalizer.detach()
        self._reset()


def _as_raised(error: BaseException) -> BaseException:
    """Return an error as the waiting thread raises it: its traceback then ends where the thread called."""
    if isinstance(error, InfraiError):
        return error.with_traceback(None)
    if isinstance(error, asyncio.CancelledError):
        cancelled = TransportError("the call was cancelled inside the client's event loop", outcome="maybe_applied")
        cancelled.__cause__ = error
        return cancelled
    trace = error.__traceback__
    return error if trace is None else error.with_traceback(trace.tb_next)


def _all_runners() -> list[Runner]:
    while True:
        try:
            return list(_runners)
        except RuntimeError:  # another thread made one at that moment
            continue


def _at_exit() -> None:
    _exiting.set()
    until = time.monotonic() + _SHUTDOWN_SECONDS
    for thread in [runner.end() for runner in _all_runners()]:
        if thread is not None:
            thread.join(until - time.monotonic())


def _after_fork() -> None:
    for runner in _all_runners():
        runner.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
