"""The event loop behind a blocking client, and how threads run coroutines in it.

A call enters the loop with one ``call_soon_threadsafe``, and its end wakes the waiting thread by releasing one lock.
This takes a third of the time of a call through anyio's ``BlockingPortal``, which is used only to keep the loop alive.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import encodings.idna  # noqa: F401 - imported now for the reason given for anyio; resolving a host needs it
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

# Import now whatever the loop's thread would import later. A child forked while that thread holds an import lock would
# inherit the lock without its owner, and wait for it forever.
import anyio
import anyio._backends._asyncio
from anyio.from_thread import BlockingPortal

import infrai_async._protocol.decode  # noqa: F401 - imported now for the reason given for anyio
from infrai_async._transport.loop_session import step
from infrai_async.errors import ClientClosedError, ConfigurationError, InfraiError, TransportError

R = TypeVar("R")
Opened: TypeAlias = "Future[tuple[Loop, BlockingPortal]]"

_POLL: Final = 0.1 if sys.platform == "win32" else -1.0  # seconds; on Windows, Ctrl-C interrupts no endless wait
_LONGEST: Final = 0.1 if sys.platform == "win32" else threading.TIMEOUT_MAX
_LOOP_END_TIME: Final = 2.0  # seconds for a loop to end after the grace period of its calls
_OWN_LOOP: Final = (
    "a blocking client cannot be used in its own event loop, where it calls functions such as api_key, children and "
    "on_error: use AsyncInfrai or another client there"
)
_runners: Final[weakref.WeakSet[Runner]] = weakref.WeakSet()
_left_behind: Final[list[object]] = []
_exiting: Final = threading.Event()


class ThreadCall(Generic[R]):
    """A call that runs in the loop while a thread waits for its result.

    Attributes:
        over: whether there is a result: ``value`` or ``error``.
        abandoned: whether no thread waits for the result any longer.
    """

    __slots__ = ("_done", "_start", "_task", "abandoned", "error", "over", "value")

    def __init__(self, start: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._start = start
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._task: asyncio.Task[None] | None = None
        self.value: R
        self.error: BaseException | None = None
        self.over = False
        self.abandoned = False

    # --- called in the waiting thread ---

    def cross(self, loop: Loop, seconds: float | None = None) -> None:
        """Run the call in the loop, and wait until it is over or given up, or until ``seconds`` have passed.

        Afterwards ``over`` is false if the loop ended before the call could start, or if time ran out.
        """
        __tracebackhide__ = True
        self.abandoned = False
        try:
            loop.call_soon_threadsafe(self._begin, loop)
            self._wait(seconds)
        except BaseException as error:  # Ctrl-C, or whatever else a signal handler raises
            # A RuntimeError of a closed loop means that the call did not start: the caller retries it in a new loop.
            # Any other exception may arrive after the call was scheduled, so it must be cancelled in the loop.
            if not isinstance(error, RuntimeError) or not loop.is_closed():
                self._cancel_in_loop(loop)
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

    def _cancel_in_loop(self, loop: Loop) -> None:
        # Set before the cancellation is scheduled: if ``_begin`` has not run yet, it sees the flag and starts no task.
        self.abandoned = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._cancel)

    def refuse(self) -> None:
        """Run a call of a closed client, whose first step raises the refusal and therefore needs no loop."""
        self.over = True
        coroutine = self._start()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self.value = stop.value
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self.error = error
        else:
            coroutine.close()
            self.error = ClientClosedError("the client is closed")

    # --- called in the thread that ends the loop ---

    def give_up(self) -> None:
        """Release the waiting thread, because the loop has ended or is stuck."""
        if self._task is None:
            self._release()
        else:
            self.end("the client was closed before the response arrived")

    def end(self, why: str) -> None:
        """End the call with an error, which the waiting thread raises."""
        if not self.over:
            self.error, self.over = TransportError(why, outcome="maybe_applied"), True
            self._release()

    def _release(self) -> None:
        self.abandoned = True
        # The call may finish in the loop's thread at this moment and release the lock first. Releasing it again raises
        # RuntimeError; the waiting thread has been woken either way.
        with contextlib.suppress(RuntimeError):
            self._done.release()

    # --- called in the loop ---

    def _begin(self, loop: Loop) -> None:
        if self.abandoned:
            return
        # The loop is ending and may have collected the tasks to cancel already, so a task created now could be left
        # unfinished. The call stays not over, and its thread tries again: in a new loop, or to be refused.
        if loop.ending:
            self._release()
        else:
            self._task = loop.create_task(self._carry())

    async def _carry(self) -> None:
        try:
            self.value = await self._start()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self.error = error
        # ``over`` is set before the lock is released, because the waiting thread reads it as soon as it wakes.
        self.over = True
        if not self.abandoned:
            self._done.release()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class LoopThread:
    """An event loop in a thread of its own, which runs until its portal is stopped."""

    def __init__(self) -> None:
        self._opened: Opened = Future()
        # An empty context: with that of a notebook cell, anyio would believe that a loop is running here already.
        self._thread = threading.Thread(
            target=Context().run, args=(_serve, self._opened), name="infrai-async", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the system allows no more threads
            self._opened.set_exception(error)

    def loop(self) -> Loop:
        """Return the loop, after waiting for its start.

        Raises:
            TransportError: the loop could not be started.
        """
        failure = self._opened.exception()
        if failure is not None:
            raise TransportError(f"the client's event loop could not be started: {failure}") from failure
        return self._opened.result()[0]

    @property
    def ident(self) -> int | None:
        """The ``threading.get_ident`` of this thread; another thread may reuse it once this one has ended."""
        return self._thread.ident

    def is_current(self) -> bool:
        """Return whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    @property
    def ended(self) -> bool:
        """Whether the loop has ended or could not start."""
        return self._opened.done() and (self._opened.exception() is not None or not self._thread.is_alive())

    def stop(self) -> None:
        """Make the loop end, which cancels its tasks and closes its sessions."""
        self._opened.add_done_callback(_stop)

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the thread to end."""
        self._thread.join(max(0.0, seconds))


class Loop(asyncio.SelectorEventLoop):
    """An event loop that can resolve names at interpreter exit, when executors accept no more work.

    Attributes:
        ending: whether the portal has stopped; tasks created from then on would not be cancelled.
    """

    ending = False

    def run_in_executor(  # type: ignore[override] # the base class is stricter than its own documentation
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in the executor or, if that is ``None``, in a new thread."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: Future[Any] = Future()
        work = partial(_work, future, func, *args)
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:  # late in interpreter exit no thread can start, and no other task is left to block
            work()
        return asyncio.wrap_future(future, loop=self)


def _work(future: Future[Any], func: Callable[..., object], *args: object) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(func(*args))
    except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
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
    if opened.exception() is None:  # otherwise the loop never ran
        loop, portal = opened.result()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: step(portal.stop()))


class Runner:
    """Runs coroutines in one event loop, started on first use, for threads that wait for the results.

    The loop ends on ``close``, when the runner is garbage collected, or at interpreter exit. A forked child starts a
    loop of its own.
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
        """Run the coroutine that ``start`` creates to its end.

        Returns:
            The result of the coroutine.

        Raises:
            ConfigurationError: called from the client's own loop, which would wait for itself.
            TransportError: the coroutine was cancelled in the loop.
            Exception: any exception that the coroutine raises.
        """
        __tracebackhide__ = True
        thread_call = ThreadCall(start)
        try:
            # Registered before the loop is read: ``close`` marks the client closed, then gives up all registered calls.
            # In the opposite order, a call could slip between the two and wait forever for a loop that is stuck.
            self._thread_calls.add(thread_call)
            while not thread_call.over:
                loop = self._loop
                if loop is None or _thread.get_ident() == self._ident:
                    loop = self._open()
                if loop is None:
                    thread_call.refuse()
                else:
                    thread_call.cross(loop)
                    if not thread_call.over and self._loop is loop:
                        self._loop = None  # it ended before the call started: forget it, and try again
        finally:
            self._thread_calls.discard(thread_call)
        if thread_call.error is None:
            return thread_call.value
        error, thread_call.error = _as_raised(thread_call.error), None
        try:
            raise error
        finally:
            del error  # breaks the reference cycle of the error, its traceback and this frame

    def _open(self) -> Loop | None:
        """Return the loop, started if necessary; ``None`` if the client is closed."""
        if _exiting.is_set() and threading.current_thread().daemon:
            threading.Event().wait()  # the interpreter is exiting: a daemon thread must start no new loop
        if not self._closed and (self._thread is None or self._thread.ended):
            # Ctrl-C is raised in the main thread only. Started from a helper thread, the loop cannot be lost to an
            # interrupt between its creation and its assignment to ``_thread``.
            starter = threading.Thread(target=self._start)
            try:
                starter.start()
            except RuntimeError as error:  # the system allows no more threads
                raise TransportError(f"the client's event loop could not be started: {error}") from error
            starter.join()
        thread = self._thread
        if self._closed or thread is None:
            return None
        self.check_outside()
        self._loop, self._ident = thread.loop(), thread.ident
        return self._loop

    def check_outside(self) -> None:
        """Check that the caller does not run in the loop, which would wait for itself.

        Raises:
            ConfigurationError: the caller runs in the loop.
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

    def close(self, close_pool: Callable[[float], Coroutine[Any, Any, None]], grace: float) -> None:
        """Refuse new calls, run ``close_pool`` in the loop, then end the loop. Closing is idempotent.

        Args:
            close_pool: closes the resources of the loop, within the given number of seconds; called again with 0 on
                Ctrl-C.
            grace: time in seconds that ``close_pool`` gets. A loop that blocks for longer is abandoned.
        """
        with self._lock:
            thread, self._closed, self._loop = self._thread, True, None
        if thread is None or thread.ended:
            return
        try:
            self._close_in(thread, close_pool, grace)
        except BaseException:
            self._close_in(thread, close_pool, 0.0)
            raise
        finally:
            thread.stop()
            thread.join(_LOOP_END_TIME)
            # The loop has ended or is stuck, so no registered call may go on waiting. A call that is registered later
            # finds ``_closed`` set and no loop.
            for other in tuple(self._thread_calls):
                other.give_up()

    def _close_in(
        self, thread: LoopThread, close_pool: Callable[[float], Coroutine[Any, Any, None]], grace: float
    ) -> None:
        thread_call = ThreadCall(partial(close_pool, grace))
        try:
            self._thread_calls.add(thread_call)
            thread_call.cross(thread.loop(), grace + _LOOP_END_TIME)
        finally:
            self._thread_calls.discard(thread_call)

    def end(self) -> LoopThread | None:
        """End the loop at interpreter exit and return its thread, if any; a later call would start a new loop."""
        with self._lock:
            thread, self._thread, self._loop = self._thread, None, None
        for thread_call in tuple(self._thread_calls):
            thread_call.abandoned = True  # a daemon thread; it must not wake up during interpreter exit
        if thread is not None:
            thread.stop()
        return thread

    def after_fork(self) -> None:
        """Reset the runner in a forked child, where its thread does not exist; the parent's objects are left alone."""
        # Kept alive: their finalizers would act on the parent's loop, or warn.
        _left_behind.append((self._thread, self._loop, self._thread_calls))
        for thread_call in self._thread_calls:  # a call of this thread, if a signal handler forked during it
            thread_call.end("the process was forked during this call, which goes on in the parent")
        if self._finalizer is not None:
            self._finalizer.detach()
        self._reset()


def _as_raised(error: BaseException) -> BaseException:
    """Return an error as the waiting thread raises it, without the traceback frames of this module."""
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
        except RuntimeError:  # another thread created a runner during the iteration
            continue


def _at_exit() -> None:
    _exiting.set()
    until = time.monotonic() + _LOOP_END_TIME
    for thread in [runner.end() for runner in _all_runners()]:
        if thread is not None:
            thread.join(until - time.monotonic())


def _after_fork() -> None:
    for runner in _all_runners():
        runner.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
