"""Concurrent listing of the children of many parents, with backpressure from the reader.

Tasks fetch whole pages and queue them for the reader. When enough items are queued, a task sets its listing aside and
ends; another task continues that listing once the reader has caught up. A fan-out that is not being read therefore has
no task that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from infrai_async._display.progress import Progress, ProgressReporter
from infrai_async._listing.cursor import Cursor, check_count
from infrai_async.errors import ClientClosedError, InvalidArgument
from infrai_async.models import Page

T = TypeVar("T")
P = TypeVar("P")
C = TypeVar("C")
Source: TypeAlias = AsyncIterable[T] | Iterable[T]
OnError: TypeAlias = Callable[[P, Exception], Awaitable[object] | object] | None
_Batch: TypeAlias = Page[T] | Sequence[T]
_Batches: TypeAlias = AsyncIterator[_Batch[T]]

_ENOUGH: Final = 1_000  # queued items at which fetching pauses; pages being fetched at that moment come on top
_CHUNK: Final = 100  # items taken from a plain iterable at a time


def fan_out(
    parents: Source[P],
    children: Callable[[P], Source[C]],
    *,
    concurrency: int = 32,
    on_error: OnError[P] = None,
    progress: Progress = False,
) -> FanOut[P, C]:
    """List the children of many parents concurrently.

    Read it with ``async for parent, child in fan_out(...)``. Every child is yielded exactly once, as soon as it has
    arrived: children of one parent in order, children of different parents in any order. Nothing is sent until the
    result is read, and only a bounded number of children is fetched ahead of the reader.

    Args:
        parents: a cursor, or any other plain or asynchronous iterable, including another fan-out. It is read while
            children are listed, and only as far as needed.
        children: function called with a parent that returns such an iterable of its children. It must not block.
        concurrency: maximum number of parents whose children are listed at once.
        on_error: plain or asynchronous function, called with a parent and the error that ended the listing of its
            children; the fan-out then continues. Without it the first error ends the fan-out. An error in ``parents``
            itself always does.
        progress: ``True`` for a progress bar, or a function called with ``(done, total)``: the number of parents whose
            children are complete, and of all parents, which is ``None`` until they are all listed.

    Returns:
        A ``FanOut``, an asynchronous iterator of ``(parent, child)`` pairs.

    Raises:
        InvalidArgument: an argument is invalid.
    """
    return spread(parents, children, concurrency, on_error, progress, what=title(parents), enough=_ENOUGH)


def title(parents: object) -> str:
    """Return the title of the progress bar over ``parents``."""
    return parents._capability if isinstance(parents, Cursor) else "fan_out"


def spread(
    parents: Source[P],
    children: Callable[[P], Source[C]],
    concurrency: int,
    on_error: OnError[P],
    progress: Progress,
    *,
    what: str,
    enough: int,
) -> FanOut[P, C]:
    """Start a fan-out with ``what`` as the bar's title and ``enough`` queued children at which fetching pauses."""
    if not callable(children):
        raise InvalidArgument("children must be a function that takes a parent and returns an iterable of its children")
    if on_error is not None and not callable(on_error):
        raise InvalidArgument("on_error must be a function that takes a parent and an error")
    at_once = check_count("concurrency", concurrency, least=1)
    work = _Work(_batches("parents must be", parents), children, at_once, on_error, enough)
    return FanOut(work, ProgressReporter(progress, what))


class FanOut(Generic[P, C]):
    """An asynchronous iterator over ``(parent, child)`` pairs, read once and by one task at a time.

    When it is left early, dropping it cancels the work in progress; ``async with`` and ``aclose`` also wait for the
    work to end. After an error, or a cancellation during a wait, it cannot be continued.
    """

    __slots__ = ("__weakref__", "_items", "_reporter", "_work")

    def __init__(self, work: _Work[P, C], reporter: ProgressReporter) -> None:
        self._work = work
        self._reporter = reporter
        self._items: Iterator[tuple[P, C]] = iter(())

    def __repr__(self) -> str:
        return "<FanOut>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[P, C]:
        while True:
            for pair in self._items:
                return pair
            if not await self._load():
                raise StopAsyncIteration

    @property
    def _progress(self) -> tuple[int, int | None]:
        return self._work.progress

    async def _load(self) -> bool:
        """Take the queued pages, waiting for pages or progress if there are none; return false at the end."""
        work = self._work
        # The tasks reference ``work`` but not this object. When the reader drops it, even in another thread, the
        # finalizer cancels them; it must not reference this object, which would then never be collected.
        if work.begin():
            weakref.finalize(self, _abandon, work).atexit = False
        work.check_reader()
        try:
            self._reporter.open()
            pages = await work.take()
            self._reporter.report(*work.progress)
        except BaseException:
            work.failed = True
            await self.aclose()
            raise
        self._items = chain.from_iterable(map(_pairs, pages))
        if pages or not work.over:
            return True
        await self.aclose()
        return False

    async def aclose(self) -> None:
        """Cancel all work in progress and wait for its end. Closing is idempotent."""
        self._items = iter(())
        try:
            await self._work.stop()
        finally:
            self._reporter.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Work(Generic[P, C]):
    """State that the tasks of a fan-out share with its reader.

    It holds no reference to the ``FanOut``, so that dropping the ``FanOut`` can end the tasks.

    Attributes:
        failed: whether the fan-out ended before its last item.
    """

    def __init__(
        self,
        source: _Batches[P],
        children: Callable[[P], Source[C]],
        concurrency: int,
        on_error: OnError[P],
        enough: int,
    ) -> None:
        self.failed: bool = False
        self._source = source
        self._children = children
        self._concurrency = concurrency
        self._on_error = on_error
        self._enough = enough
        self._parents: deque[P] = deque()
        self._exhausted = False  # whether all parents have been listed
        self._aside: deque[tuple[P, _Batches[C]]] = deque()
        self._ready: deque[tuple[P, _Batch[C]]] = deque()
        self._waiting = 0  # number of queued items
        self._counted = 0
        self._done = 0
        self._reported = 0  # how many of ``_done`` the reader knows
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lister: asyncio.Task[None] | None = None  # lists the parents
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[Any] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._stopped = False

    @property
    def progress(self) -> tuple[int, int | None]:
        """Number of parents whose children are complete, and of all parents if known."""
        return self._done, self._counted if self._exhausted else None

    @property
    def over(self) -> bool:
        """Whether there is nothing more to read."""
        return self._stopped or (self._exhausted and not (self._workers or self._parents or self._aside or self._ready))

    # --- called by the reader ---

    def begin(self) -> bool:
        """Bind to the running loop; return whether this is the first read."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # without a loop, only a closed blocking client gets here
            raise ClientClosedError("the client is closed") from None
        first = self._loop is None
        if first:
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("this fan-out is bound to the event loop that read it first: read it in that loop")
        return first

    def check_reader(self) -> None:
        """Check that the fan-out can be read, and watch the reading task."""
        if self._reading is not None:
            raise RuntimeError("this fan-out is being read by another task: use a fan-out of its own for each task")
        if self.failed:
            raise RuntimeError(
                "this fan-out was ended by an error or a cancellation and cannot be continued: start another"
            )
        reader = asyncio.current_task()
        if reader is not self._reader and not self._stopped:
            self._forget_reader()
            self._reader = reader
            if reader is not None:
                reader.add_done_callback(self._reader_ended)

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.remove_done_callback(self._reader_ended)
            self._reader = None

    def _reader_ended(self, reader: asyncio.Task[Any]) -> None:
        """Cancel the fan-out with a reader that was cancelled outside of it.

        The traceback of the cancellation may keep the ``FanOut`` alive, so that its finalizer would not run.
        """
        self._reader = None  # the task's exception may reference the fan-out through its traceback
        if reader.cancelled():
            self.failed = True
            self.cancel()

    async def take(self) -> list[tuple[P, _Batch[C]]]:
        """Return queued pages of about ``enough`` items, after waiting for a page or for a parent to be complete."""
        self._fill()
        # Everything below runs in the loop, so no page can be queued between this check and the creation of the future:
        # ``_wake`` either runs before the check, or finds the future.
        while not (self._ready or self._done > self._reported or self._error is not None or self.over):
            self._reading = asyncio.get_running_loop().create_future()
            try:
                await self._reading
            finally:
                self._reading = None
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # breaks the reference cycle of the error, its traceback and this frame
        pages, count = [], 0
        while self._ready and count < self._enough:
            pages.append(self._ready.popleft())
            count += len(pages[-1][1])
        self._waiting -= count
        self._reported = self._done
        self._fill()
        return pages

    async def stop(self) -> None:
        """Cancel the tasks, wait for their end, then close the listings that were set aside."""
        self.cancel()
        while running := [task for task in self._tasks() if not task.done()]:
            if running == [asyncio.current_task()]:
                break
            await asyncio.wait(running)
        aside = [batches for _, batches in self._aside]
        self._aside.clear()
        for batches in (*aside, self._source):
            if isinstance(batches, _Nested | _Single):
                await batches.aclose()

    def cancel(self) -> None:
        """Cancel the tasks without waiting for their end."""
        if self._stopped:
            return
        # From here on, ``_ended`` starts no new tasks and does not report the cancelled ones as failures.
        self._stopped = True
        self._forget_reader()
        self._parents.clear()
        self._ready.clear()
        self._cancel_tasks()
        self._wake()

    def _cancel_tasks(self) -> None:
        for task in self._tasks():
            task.cancel()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._workers, *(() if self._lister is None else (self._lister,))]

    def _wake(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    def abandon(self) -> None:
        """Cancel the tasks from any thread, as the garbage collector may run in any."""
        if self._loop is not None and not self._stopped:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.cancel)

    # --- called by the tasks ---

    def _fill(self) -> None:
        """Start the tasks that are wanted now, within the limits of concurrency and of queued items."""
        if self._stopped or self._error is not None or self._waiting >= self._enough:
            return
        if self._lister is None and not self._exhausted and len(self._parents) < self._concurrency:
            self._lister = self._start(self._list_parents())
        wanted = len(self._parents) + len(self._aside)
        for _ in range(min(wanted, self._concurrency - len(self._workers))):
            self._workers.add(self._start(self._list_children()))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not ``loop.create_task``: an eager task factory would run the task here, before ``_lister`` or ``_workers``
        # contains it, and ``_fill``, called from that task, would start too many.
        task = asyncio.Task(work, loop=asyncio.get_running_loop())
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        if task is self._lister:
            self._lister = None
        if task.cancelled():
            self._fail(RuntimeError("a task of the fan-out was cancelled"))
        elif (error := task.exception()) is not None:
            self._fail(error)
        self._fill()
        if self.over:
            self._wake()

    def _fail(self, error: BaseException) -> None:
        if not self._stopped and self._error is None:
            self._error = error
            self._cancel_tasks()
            self._wake()

    async def _list_parents(self) -> None:
        while len(self._parents) < self._concurrency and self._waiting < self._enough:
            try:
                page = await anext(self._source)
            except StopAsyncIteration:
                self._exhausted = True
                return
            self._parents.extend(page)
            self._counted += len(page)
            self._fill()

    async def _list_children(self) -> None:
        while self._waiting < self._enough:
            if self._aside:
                parent, batches = self._aside.popleft()
            elif self._parents:
                parent, batches = self._parents.popleft(), None
                self._fill()
            else:
                return
            try:
                if await self._list_children_of(parent, batches):
                    self._note_done()
            except Exception as error:
                if self._on_error is None:
                    raise
                result = self._on_error(parent, error)
                if inspect.isawaitable(result):
                    await result
                self._note_done()

    def _note_done(self) -> None:
        self._done += 1
        self._wake()

    async def _list_children_of(self, parent: P, batches: _Batches[C] | None) -> bool:
        """List children until the end (return true), or set the listing aside when enough are queued (false)."""
        if batches is None:
            batches = _batches("children must return", self._children(parent))
        async for page in batches:
            if len(page):
                self._ready.append((parent, page))
                self._waiting += len(page)
                self._wake()
            if self._waiting >= self._enough:
                self._aside.append((parent, batches))
                return False
        return True


def _abandon(work: _Work[Any, Any]) -> None:
    work.abandon()


def _pairs(page: tuple[P, _Batch[C]]) -> Iterator[tuple[P, C]]:
    parent, items = page
    return zip(repeat(parent), items)


# --- adapters: any iterable as an asynchronous iterator of batches ---


class _Nested(Generic[P, C]):
    """Adapter for another fan-out."""

    def __init__(self, source: FanOut[P, C]) -> None:
        self._source = source

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[tuple[P, C]]:
        source = self._source
        while not (rest := tuple(source._items)):
            if not await source._load():
                raise StopAsyncIteration
        return rest

    async def aclose(self) -> None:
        await self._source.aclose()


class _Single(Generic[T]):
    """Adapter for an asynchronous iterable, one item at a time, because the next item may take long."""

    def __init__(self, source: AsyncIterable[T]) -> None:
        self._items = aiter(source)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[T]:
        return (await anext(self._items),)

    async def aclose(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


class _Chunks(Generic[T]):
    """Adapter for a plain iterable, in chunks, because its items need no waiting."""

    def __init__(self, source: Iterable[T]) -> None:
        self._items = iter(source)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[T]:
        chunk: list[T] = []
        try:
            chunk.extend(islice(self._items, _CHUNK))
        except Exception as error:
            if not chunk:
                raise
            self._items = _failing(error)  # the items before the error are returned first
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _failing(error: Exception) -> Iterator[Any]:
    try:
        raise error
    finally:
        del error  # breaks the reference cycle of the error, its traceback and this frame
    yield


def _batches(what: str, source: object) -> _Batches[Any]:
    match source:
        case Cursor():
            return source.pages()
        case FanOut():
            return _Nested(source)
        case AsyncIterable():
            return _Single(source)
        case Iterable():
            return _Chunks(source)
        case Coroutine():
            source.close()
    raise InvalidArgument(f"{what} a cursor or another iterable, not {type(source).__name__}")
