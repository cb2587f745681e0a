"""The crossing of a blocking client's calls between threads.

A call enters the loop by one ``call_soon_threadsafe``. The calling thread then acquires a lock, which the last step of
the call releases. This takes a third of the time of a call through anyio's portal; the portal only keeps the loop
running.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, TypeVar

from infrai_async._running import is_held_up, running
from infrai_async.errors import ClientClosedError, ConfigurationError, InfraiError, TransportError
from infrai_async.sync._loop_thread import SLICE, Loop, LoopThread

R = TypeVar("R")

_SHUTDOWN_SECONDS: Final = 2.0  # how long a loop may take to end, beyond the grace period of its calls
_OWN_LOOP: Final = (
    "a blocking client cannot be called in its own event loop, for example in its api_key function: "
    "use AsyncInfrai there, or another client"
)
_CLOSED: Final = "the client is closed: create another one"
_OWN_GATEWAY: Final = (
    "the local gateway at {} runs in the event loop of this thread, so it cannot answer while a blocking client waits "
    "here: use AsyncInfrai, or run the gateway in a thread of its own (with LocalGateway()) or in another process"
)
_runners: Final[weakref.WeakSet[Runner]] = weakref.WeakSet()
_left_behind: Final[list[object]] = []
_exiting: Final = threading.Event()
_main_thread = threading.main_thread().ident  # only this one runs signal handlers, so only its waits need slices


class ThreadCall(Generic[R]):
    """A call that runs in the event loop while a thread waits for its result.

    Four parties may touch it at the same time: the waiting thread, the event loop, a signal handler in the waiting
    thread, and a thread that closes the client. The waiting thread sets ``abandoned`` before it asks the loop to
    cancel: ``_begin``, if it has not run yet, then starts nothing, and ``_complete`` releases no lock. Callbacks of a
    loop run in order, so the cancellation cannot come before ``_begin``.
    """

    __slots__ = ("_done", "_start", "_task", "abandoned", "error", "over", "value")

    def __init__(self, start: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self._start = start
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._task: asyncio.Task[None] | None = None
        self.value: R
        self.error: BaseException | None = None
        self.over = False  # the call has a value or an error
        self.abandoned = False  # no thread waits for it any more

    # --- in the waiting thread ---

    def cross(self, loop: Loop, seconds: float | None = None) -> None:
        """Run the call in the loop, and wait until it is over or given up, or until ``seconds`` have passed.

        If the loop ends before the call has started, the call is not over afterwards and can cross into another loop.
        """
        __tracebackhide__ = True
        self.abandoned = False
        try:
            loop.call_soon_threadsafe(self._begin, loop)
            self._wait(seconds)
        except BaseException as error:  # Ctrl-C, or another exception of a signal handler
            self.abandoned = True
            try:
                if isinstance(error, RuntimeError) and loop.is_closed():
                    return
                self._cancel_from_thread(loop)
            except BaseException:
                # A second Ctrl-C may have come before the cancellation was complete. The interpreter runs no signal
                # handler between here and the start of the helper thread, and never runs one in that thread.
                _thread.start_new_thread(self._cancel_from_thread, (loop,))
                raise
            raise

    def _wait(self, seconds: float | None) -> None:
        __tracebackhide__ = True
        if seconds is None:
            longest = SLICE if _thread.get_ident() == _main_thread else -1.0
            while not self._done.acquire(True, longest):
                pass
            return
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._done.acquire(True, min(left, SLICE)):
            pass

    def _cancel_from_thread(self, loop: Loop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(self._cancel)

    def run_refusal(self) -> None:
        """Run a call of a closed client, without a loop: it raises its refusal before it would suspend."""
        self.over = True
        coroutine = self._start()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            self.value = stop.value
        except ConfigurationError:  # it needs a loop, and a closed client has none
            self.error = ClientClosedError(_CLOSED)
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self.error = error
        else:
            coroutine.close()
            self.error = ClientClosedError(_CLOSED)

    # --- in the thread that ends the loop ---

    def give_up(self) -> None:
        """Wake the waiting thread, because the loop has ended or is stuck."""
        if self._task is None:
            self._release()
        else:
            self.end("the client was closed before the response arrived")

    def end(self, why: str) -> None:
        """Make the waiting thread raise an error."""
        if not self.over:
            self.error, self.over = TransportError(why, outcome="maybe_applied"), True
            self._release()

    def _release(self) -> None:
        self.abandoned = True
        # The call may complete at the same moment; the second release of the lock then raises RuntimeError.
        with contextlib.suppress(RuntimeError):
            self._done.release()

    # --- called in the loop ---

    def _begin(self, loop: Loop) -> None:
        if self.abandoned:
            return
        if loop.ending:  # a task that starts now would not be cancelled with the others
            self._release()
        else:
            self._task = loop.create_task(self._complete())

    async def _complete(self) -> None:
        try:
            self.value = await self._start()
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self.error = error
        # ``over`` is set before the lock is released, because the waiting thread reads it as soon as it wakes.
        self.over = True
        if not self.abandoned:
            self._done.release()

    def _cancel(self) -> None:
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()


class Runner:
    """Runs coroutines for waiting threads, in one event loop that starts with the first call.

    The loop ends when the runner is closed or collected, or when the interpreter exits. A forked child process starts
    a loop of its own.

    ``_closed`` and ``_thread`` change under the lock. ``_loop`` is only a cache for the fast path of ``run``, which
    uses it without the lock: a call that finds a loop there that has ended clears it and starts over.

    Args:
        service: the URL of the service that the coroutines call.
    """

    def __init__(self, service: str) -> None:
        self._service = service
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

    def run(self, start: Callable[[], Coroutine[Any, Any, R]], *, calls_service: bool = True) -> R:
        """Run the coroutine that ``start`` creates; return its result, or raise its exception.

        Args:
            start: creates the coroutine.
            calls_service: whether the coroutine waits for responses of the service.

        Raises:
            ConfigurationError: called in the client's own event loop, which cannot wait for itself, or in that of a
                local gateway that is the service.
            TransportError: the coroutine was cancelled in the event loop.
        """
        __tracebackhide__ = True
        if running and calls_service and not self._closed and is_held_up(self._service):
            raise ConfigurationError(_OWN_GATEWAY.format(self._service))
        thread_call = ThreadCall(start)
        try:
            # The call is registered before ``_loop`` is read; a closing thread clears ``_loop`` before it looks for
            # registered calls. So either this thread finds no loop, or the closing thread finds this call and wakes it.
            self._thread_calls.add(thread_call)
            while not thread_call.over:
                loop = self._loop
                if loop is None or _thread.get_ident() == self._ident:
                    loop = self._open()
                if loop is None:
                    thread_call.run_refusal()
                else:
                    thread_call.cross(loop)
                    if not thread_call.over and self._loop is loop:
                        self._loop = None  # the loop has ended, by ``close`` or by the exit of the interpreter
        finally:
            self._thread_calls.discard(thread_call)
        if thread_call.error is None:
            return thread_call.value
        error, thread_call.error = _as_raised(thread_call.error), None
        try:
            raise error
        finally:
            del error  # the traceback refers to this frame: breaks the reference cycle

    def _open(self) -> Loop | None:
        """Return the loop, after starting it if necessary; ``None`` if the runner is closed."""
        if _exiting.is_set() and threading.current_thread().daemon:
            threading.Event().wait()  # the interpreter is about to kill this thread, and must not start another loop
        if not self._closed and (self._thread is None or self._thread.ended):
            # Started in a helper thread: Ctrl-C interrupts the main thread only, so it cannot come between the start
            # of the loop and its assignment to ``_thread``, which would leave a loop running that is never stopped.
            # ``threading.Thread.start`` waits for a condition that Ctrl-C can leave locked; a bare lock it cannot.
            started = _thread.allocate_lock()
            started.acquire()
            try:
                _thread.start_new_thread(self._start, (started,))
            except RuntimeError as error:  # no thread can be started
                raise TransportError(f"the client's event loop could not be started: {error}") from error
            while not started.acquire(True, SLICE):
                pass
        thread = self._thread
        if self._closed or thread is None:
            return None
        self.check_outside()
        self._loop, self._ident = thread.loop(), thread.ident
        return self._loop

    def check_outside(self) -> None:
        """Raise if the current thread is that of the loop, which cannot wait for itself.

        Raises:
            ConfigurationError: called in the client's own event loop.
        """
        thread = self._thread
        if thread is not None and thread.is_current():
            raise ConfigurationError(_OWN_LOOP)

    def _start(self, started: _thread.LockType) -> None:
        try:
            with self._lock:  # several threads may start the loop at once; only the first of them does
                if not self._closed and (self._thread is None or self._thread.ended):
                    self._thread = LoopThread()
                    self._finalizer = weakref.finalize(self, self._thread.stop)
                    self._finalizer.atexit = False
        finally:
            started.release()

    def close(self, shut_down: Callable[[float], Coroutine[Any, Any, None]], grace: float) -> None:
        """Refuse new calls, run ``shut_down`` in the loop, and end the loop. Closing is idempotent.

        Args:
            shut_down: closes everything in the loop within the given seconds. It is called again with zero on Ctrl-C.
            grace: the seconds to give to ``shut_down``. A loop that is stuck for longer is abandoned.
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
            try:
                thread.stop()
                thread.join(_SHUTDOWN_SECONDS)
            finally:  # the callers in other threads are woken even if Ctrl-C ends the wait for the loop
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
        """End the loop at the exit of the interpreter, and return its thread, if there is one."""
        with self._lock:
            thread, self._thread, self._loop = self._thread, None, None
        for thread_call in tuple(self._thread_calls):
            thread_call.abandoned = True  # waiting daemon threads must not be woken during the exit
        if thread is not None:
            thread.stop()
        return thread

    def after_fork(self) -> None:
        """Reset the runner in a forked child process, where the loop's thread does not exist."""
        # Kept alive: if collected in the child, they would warn about being unclosed.
        _left_behind.append((self._thread, self._loop, self._thread_calls))
        for thread_call in self._thread_calls:  # calls of this thread, which forked in a signal handler
            thread_call.end("the process was forked during this call, which continues in the parent process")
        if self._finalizer is not None:
            self._finalizer.detach()
        self._reset()


def _as_raised(error: BaseException) -> BaseException:
    """Prepare an exception for the waiting thread, so that its traceback ends at the call in that thread."""
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
    until = time.monotonic() + _SHUTDOWN_SECONDS
    for thread in [runner.end() for runner in _all_runners()]:
        if thread is not None:
            thread.join(until - time.monotonic())


def _after_fork() -> None:
    global _main_thread  # the thread that forked is the main thread of the child
    _main_thread = threading.get_ident()
    for runner in _all_runners():
        runner.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
