"""The thread that runs the event loop of a blocking client, from its start to its end."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import encodings.idna  # noqa: F401 - for the same reason as anyio below; resolving a host name needs it
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from functools import partial
from typing import Any, Final, cast

# Imported here, not in the loop's thread: a child forked during an import would wait for the import lock forever.
import anyio
import anyio._backends._asyncio
from anyio.from_thread import BlockingPortal

import infrai_async._protocol.decode  # noqa: F401 - as anyio above
from infrai_async._transport.loop_session import run_one_step
from infrai_async.errors import TransportError

# Seconds. Between two slices of a wait the interpreter runs signal handlers. Elsewhere than on Windows, Ctrl-C normally
# interrupts a wait at once, but not if another thread receives the signal, or if it comes just before the wait begins.
SLICE: Final = 0.1 if sys.platform == "win32" else 0.5


class Opening:
    """How the thread of a loop says that the loop runs, or why it could not be started.

    A ``Future`` would not do: its condition stays locked for ever if Ctrl-C comes at the wrong moment of a wait.
    """

    __slots__ = ("_over", "failure", "running", "stopping")

    def __init__(self) -> None:
        self._over = _thread.allocate_lock()
        self._over.acquire()
        self.running: tuple[Loop, BlockingPortal] | None = None
        self.failure: BaseException | None = None
        self.stopping = False  # the loop shall end as soon as it runs

    @property
    def over(self) -> bool:
        """Whether the loop runs, or could not be started."""
        return self.running is not None or self.failure is not None

    def wait(self) -> None:
        """Wait until the loop runs, or could not be started."""
        # Every thread waits in slices: Ctrl-C may come between the two calls of another one and leave the lock locked.
        while not self.over:
            if self._over.acquire(True, SLICE):
                self._over.release()

    def succeed(self, loop: Loop, portal: BlockingPortal) -> None:
        """Wake the threads that wait for the loop."""
        self.running = loop, portal
        self._over.release()

    def fail(self, failure: BaseException) -> None:
        """Wake the threads that wait for the loop, which could not be started."""
        self.failure = failure
        self._over.release()


class LoopThread:
    """An event loop in a thread of its own; it runs as long as its portal is open."""

    def __init__(self) -> None:
        self._opening = Opening()
        # In an empty context: that of a notebook's cell would make anyio believe that a loop is already running here.
        self._thread = threading.Thread(
            target=Context().run, args=(_serve, self._opening), name="infrai-async", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread can be started
            self._opening.fail(error)

    def loop(self) -> Loop:
        """Wait until the loop runs, and return it.

        Raises:
            TransportError: the loop could not be started.
        """
        opening = self._opening
        opening.wait()
        if opening.running is None:
            failure = opening.failure
            raise TransportError(f"the client's event loop could not be started: {failure}") from failure
        return opening.running[0]

    @property
    def ident(self) -> int | None:
        """The identifier of this thread; another thread may get the same one after this has ended."""
        return self._thread.ident

    def is_current(self) -> bool:
        """Return whether the current thread is this one."""
        return threading.current_thread() is self._thread

    @property
    def ended(self) -> bool:
        """Whether the loop has ended, or could not be started."""
        return self._opening.over and (self._opening.failure is not None or not self._thread.is_alive())

    def stop(self) -> None:
        """Make the loop end; it cancels its tasks and closes its sessions."""
        # In this order, because the loop's thread does the reverse: it sets ``running``, then reads ``stopping``.
        self._opening.stopping = True
        if self._opening.running is not None:
            loop, portal = self._opening.running
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: run_one_step(portal.stop()))

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the thread to end."""
        until = time.monotonic() + seconds
        while self._thread.is_alive() and (left := until - time.monotonic()) > 0:
            self._thread.join(min(left, SLICE))


class Loop(asyncio.SelectorEventLoop):
    """An event loop that can resolve host names after the main thread has ended and executors accept no more work."""

    ending = False  # true once the loop no longer cancels new tasks at its end

    def run_in_executor(  # type: ignore[override] # the base class is stricter than its own documentation
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a function in the executor or, without one, in a thread of its own."""
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: Future[Any] = Future()
        work = partial(_work, future, func, *args)
        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError:  # late in the exit no thread can be started; blocking the loop then harms no other call
            work()
        return asyncio.wrap_future(future, loop=self)


def _work(future: Future[Any], func: Callable[..., object], *args: object) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(func(*args))
    except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
        future.set_exception(error)


def _serve(opening: Opening) -> None:
    try:
        anyio.run(_stay_open, opening, backend_options={"loop_factory": Loop})
    except BaseException as error:
        if opening.over:
            raise
        opening.fail(error)


async def _stay_open(opening: Opening) -> None:
    loop = cast("Loop", asyncio.get_running_loop())
    async with BlockingPortal() as portal:
        opening.succeed(loop, portal)
        if not opening.stopping:
            await portal.sleep_until_stopped()
    loop.ending = True
