"""Fan-out: one listing for each item of another, many concurrently, with back-pressure from the reader.

Worker tasks fetch whole pages and queue them for the reader. When enough items are queued, the workers suspend their
listings and end; a later task continues them. A fan-out that is not read, or was left early, therefore has no running
tasks.

All tasks and the reader run in one event loop, and none of them awaits between checking the shared state and changing
it, so the state needs no lock. Only the finalizer may run in another thread; it uses ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from infrai_async._display.progress import Progress, ProgressReporter
from infrai_async._event_loop import require_task
from infrai_async._listing.batches import Chunks, Singles
from infrai_async._listing.cursor import Cursor, check_count, gather_items, named_pair, records_of
from infrai_async._misuse import explain_async_with, explain_asynchronous, is_explained
from infrai_async.errors import InvalidArgument
from infrai_async.models import Page

T = TypeVar("T")
P = TypeVar("P")
C = TypeVar("C")
Source: TypeAlias = AsyncIterable[T] | Iterable[T]
OnError: TypeAlias = Callable[[P, Exception], Awaitable[object] | object] | None
_Batch: TypeAlias = Page[T] | Sequence[T]
_Batches: TypeAlias = AsyncIterator[_Batch[T]]

_ENOUGH: Final = 1_000  # queued items at which workers stop; the pages in flight at that moment are added to them


def fan_out(
    parents: Source[P],
    children: Callable[[P], Source[C]],
    *,
    concurrency: int = 32,
    on_error: OnError[P] = None,
    progress: Progress = False,
) -> FanOut[P, C]:
    """List the children of every parent, many parents concurrently.

    Read the result by ``async for parent, child in fan_out(...)``. Every child is returned exactly once, as soon as it
    is available. The children of one parent keep their order; those of different parents are interleaved. Nothing is
    sent until the result is read, and memory stays bounded: fetching stops while the reader does not keep up.

    Args:
        parents: a cursor or another iterable of parents, async or plain, including another fan-out. It is read while
            children are being listed, and only as far as needed.
        children: a function that returns a cursor or another iterable of the children of a parent. It must not block.
        concurrency: the maximum number of parents whose children are listed concurrently.
        on_error: a function of a parent and the exception raised while its children were listed, plain or async. The
            fan-out then continues with the other parents. Without it, the first exception ends the fan-out. An
            exception of ``parents`` itself always does.
        progress: ``True`` for a progress bar, or a function that is called with ``(done, total)``: the number of
            parents whose children are all listed, and the number of all parents, which is ``None`` until it is known.

    Returns:
        An asynchronous iterator of pairs of parent and child.

    Raises:
        InvalidArgument: an argument is invalid.
    """
    return spread(parents, children, concurrency, on_error, progress, what=title(parents), enough=_ENOUGH)


def title(parents: object) -> str:
    """Return the title of a progress bar over ``parents``."""
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
    """Create a fan-out: ``what`` is the progress bar's title, ``enough`` the number of queued items to stop at."""
    if not callable(children):
        raise InvalidArgument("children must be a function of a parent that returns an iterable of its children")
    if on_error is not None and not callable(on_error):
        raise InvalidArgument("on_error must be a function of a parent and an exception")
    workers = check_count("concurrency", concurrency, least=1)
    work = _Work(_batches("parents must be", parents), children, workers, on_error, enough)
    return FanOut(work, ProgressReporter(progress, what))


class FanOut(Generic[P, C]):
    """An asynchronous iterator of pairs of parent and child. It is read once, by one task at a time.

    If a fan-out is left early and dropped, its tasks are cancelled. ``async with`` and ``aclose`` also wait until they
    have ended. After an exception, or a cancellation of the reader while it waits, a fan-out cannot be read further.
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
        """Wait for pages or for progress, and make the pages the current ones; return false at the end."""
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

    async def collect(self, *, max_items: int | None = None) -> list[tuple[P, C]]:
        """Read the remaining pairs into a list.

        Args:
            max_items: the maximum number of pairs to read. The fan-out can be read further afterwards.

        Returns:
            The pairs as a list, which notebooks show as a table.

        Raises:
            InvalidArgument: ``max_items`` is not a whole number, 0 or more.
            InfraiError: a call failed, and there is no ``on_error``.
        """
        return await gather_items(self, max_items)

    async def to_records(self, *, max_items: int | None = None, secrets: bool = False) -> list[dict[str, object]]:
        """Read the rest into plain dicts, each with a ``parent`` and a ``child``: ``pandas.json_normalize(...)``.

        Times are aware ``datetime`` objects, and money is a number.

        Args:
            max_items: as for ``collect``.
            secrets: whether to show secrets, such as the passwords of connection URIs; masked otherwise.

        Raises:
            InfraiError: as for ``collect``.
        """
        return records_of(map(named_pair, await self.collect(max_items=max_items)), secrets=secrets)

    async def aclose(self) -> None:
        """Cancel all running tasks, and wait until they have ended. Closing is idempotent."""
        self._items = iter(())
        try:
            await self._work.stop()
        finally:
            self._reporter.close()

    async def __aenter__(self) -> Self:
        require_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


explain_asynchronous(FanOut, "a fan-out", "[pair async for pair in fan_out(...)]")
explain_async_with(FanOut, "a fan-out")


class _Work(Generic[P, C]):
    """The state that the tasks of a fan-out share with its reader.

    It holds no reference to the ``FanOut``, so that running tasks do not keep a fan-out alive that was dropped.

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
        self._exhausted = False  # all parents are listed
        self._suspended: deque[tuple[P, _Batches[C]]] = deque()
        self._ready: deque[tuple[P, _Batch[C]]] = deque()
        self._waiting = 0  # items in ``_ready``
        self._counted = 0  # parents listed
        self._done = 0  # parents whose children are all listed
        self._reported = 0  # the value of ``_done`` that the reader has seen
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lister: asyncio.Task[None] | None = None  # lists the parents
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[Any] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._stopped = False

    @property
    def progress(self) -> tuple[int, int | None]:
        """The number of parents done, and the number of all parents, ``None`` if that is not known yet."""
        return self._done, self._counted if self._exhausted else None

    @property
    def over(self) -> bool:
        """Whether no further items can follow."""
        return self._stopped or (
            self._exhausted and not (self._workers or self._parents or self._suspended or self._ready)
        )

    # --- called by the reader ---

    def begin(self) -> bool:
        """Bind to the running event loop; return whether this is the first time."""
        loop = require_task().get_loop()
        first = self._loop is None
        if first:
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("this fan-out is being read in another event loop: read it to its end in that one")
        return first

    def check_reader(self) -> None:
        """Raise if the fan-out cannot be read now; otherwise watch for the end of the task that reads it."""
        if self._reading is not None:
            raise RuntimeError("this fan-out is being read by another task: use a separate fan-out for each task")
        if self.failed:
            raise RuntimeError(
                "this fan-out ended before its last item, by an exception or a cancellation: start another one"
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
        """Cancel the work if its reader was cancelled between two reads.

        The traceback of that cancellation may keep the fan-out alive, so its finalizer would not run.
        """
        self._reader = None
        if reader.cancelled():
            self.failed = True
            self.cancel()

    async def take(self) -> list[tuple[P, _Batch[C]]]:
        """Wait until pages are ready or a parent is done; return the ready pages, but no more than enough."""
        self._fill()
        # There is no await between the check and the creation of the future, so no wake-up can be missed. After a
        # wake-up the conditions are checked again, because several tasks may have caused it.
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
                del error  # the traceback refers to this frame: breaks the reference cycle
        pages, count = [], 0
        while self._ready and count < self._enough:
            pages.append(self._ready.popleft())
            count += len(pages[-1][1])
        self._waiting -= count
        self._reported = self._done
        self._fill()
        return pages

    async def stop(self) -> None:
        """Cancel the tasks and wait until they have ended, then close the suspended listings."""
        if any(not task.done() for task in self._tasks()):
            require_task()  # before they are cancelled, because their end can be awaited in a task only
        self.cancel()
        while running := [task for task in self._tasks() if not task.done()]:
            if running == [asyncio.current_task()]:  # called in a task itself, for example by ``on_error``
                break
            await asyncio.wait(running)
        suspended = [batches for _, batches in self._suspended]
        self._suspended.clear()
        for batches in (*suspended, self._source):
            if isinstance(batches, _Nested | Singles):
                await batches.aclose()

    def cancel(self) -> None:
        """Cancel the tasks, and discard the queued items."""
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
        """Cancel the tasks from the thread in which the garbage collector runs."""
        if self._loop is not None and not self._stopped:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.cancel)

    # --- called by the tasks ---

    def _fill(self) -> None:
        """Start as many tasks as are needed now."""
        if self._stopped or self._error is not None or self._waiting >= self._enough:
            return
        if self._lister is None and not self._exhausted and len(self._parents) < self._concurrency:
            self._lister = self._start(self._list_parents())
        wanted = len(self._parents) + len(self._suspended)
        for _ in range(min(wanted, self._concurrency - len(self._workers))):
            self._workers.add(self._start(self._list_children()))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not by the loop's task factory: an eager one would run the task before it is in ``_workers``.
        task = asyncio.Task(work, loop=asyncio.get_running_loop())
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._workers.discard(task)
        if task is self._lister:
            self._lister = None
        if task.cancelled():
            self._fail(RuntimeError("a task of the fan-out was cancelled by other code"))
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
            if self._suspended:
                parent, batches = self._suspended.popleft()
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
        """List the children of one parent; return false if there was enough and the listing is suspended."""
        if batches is None:
            batches = _batches("children must return", self._children(parent))
        async for page in batches:
            if len(page):
                self._ready.append((parent, page))
                self._waiting += len(page)
                self._wake()
            if self._waiting >= self._enough:
                self._suspended.append((parent, batches))
                return False
        return True


def _abandon(work: _Work[Any, Any]) -> None:
    work.abandon()


def _pairs(page: tuple[P, _Batch[C]]) -> Iterator[tuple[P, C]]:
    parent, items = page
    return zip(repeat(parent), items)


# --- adapters: any iterable as an asynchronous iterator of batches ---


class _Nested(Generic[P, C]):
    """The items of another fan-out, in batches."""

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


def _batches(what: str, source: object) -> _Batches[Any]:
    match source:
        case Cursor():
            return source.pages()
        case FanOut():
            return _Nested(source)
        case AsyncIterable() if not is_explained(source, "__aiter__"):  # as it is for a cursor of the blocking client
            return Singles(source)
        case Iterable():
            return Chunks(source)
        case Coroutine():
            source.close()
    raise InvalidArgument(f"{what} a cursor or another iterable, not {type(source).__name__}")
