"""One listing for each item of another, many at a time, with as much under way as the consumer keeps up with.

Whole pages travel from the tasks that fetch them to the consumer. A task lasts no longer than there is something to
fetch: where enough waits for the consumer, listings are set aside and go on later in another task. So one that was
left early, or is not read, has nothing running.
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

_ENOUGH: Final = 1_000  # items that wait for the consumer; what is fetched at that moment comes on top
_CHUNK: Final = 100  # items of a plain iterable at once


def fan_out(
    parents: Source[P],
    children: Callable[[P], Source[C]],
    *,
    concurrency: int = 32,
    on_error: OnError[P] = None,
    progress: Progress = False,
) -> FanOut[P, C]:
    """List the children of every parent, many parents at a time.

    Read it by ``async for parent, child in fan_out(...)``. Every child comes exactly once, as soon as it is there: the
    children of one parent in their order, those of different parents in any. Nothing is sent until it is read, and no
    more is fetched than the reader keeps up with.

    Args:
        parents: a cursor, or any other iterable, asynchronous or not; another fan-out too. It is listed while
            children are, and only as far as needed.
        children: called with a parent, gives such an iterable of its children; it must not block.
        concurrency: how many parents' children are listed at once.
        on_error: called with a parent and the error that its children ended in, plain or asynchronous, and the rest
            goes on. Without it the first error ends everything. An error of the parents' own listing always does.
        progress: ``True`` for a bar, or a function that is called with ``(done, total)``: parents whose children are
            all there, and parents in all, which is ``None`` until those are all listed.

    Raises:
        InvalidArgument: an argument is wrong.
    """
    return spread(parents, children, concurrency, on_error, progress, what=title(parents), enough=_ENOUGH)


def title(parents: object) -> str:
    """Return what a bar over ``parents`` is called."""
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
    """Do as ``fan_out`` does: ``what`` is the bar's title, ``enough`` how many children wait for the reader."""
    if not callable(children):
        raise InvalidArgument("children must be a function of a parent that gives an iterable of its children")
    if on_error is not None and not callable(on_error):
        raise InvalidArgument("on_error must be a function of a parent and an error")
    at_once = check_count("concurrency", concurrency, least=1)
    work = _Work(_batches("parents must be", parents), children, at_once, on_error, enough)
    return FanOut(work, ProgressReporter(progress, what))


class FanOut(Generic[P, C]):
    """Pairs of parent and child, as an asynchronous iterator that is read once, by one task at a time.

    Left early, it ends what is under way when it is dropped; ``async with`` and ``aclose`` also wait for that end.
    An error, and a cancellation while it is waited for, end it for good.
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
        """Take what is ready in hand, or wait for it or for news of progress; false at the end."""
        work = self._work
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
        """End everything that is under way, and wait for its end; calling it again does nothing more."""
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
    """What the tasks of a fan-out share with its reader; it does not know the reader's side, so that it can be dropped.

    Attributes:
        failed: it ended before its last item.
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
        self._exhausted = False  # there are no more parents than those
        self._suspended: deque[tuple[P, _Batches[C]]] = deque()
        self._ready: deque[tuple[P, _Batch[C]]] = deque()
        self._waiting = 0  # items that are ready
        self._counted = 0
        self._done = 0
        self._reported = 0  # of those that are done
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lister: asyncio.Task[None] | None = None  # of parents
        self._workers: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[Any] | None = None
        self._reading: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._stopped = False

    @property
    def progress(self) -> tuple[int, int | None]:
        """Parents done, and parents in all."""
        return self._done, self._counted if self._exhausted else None

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._stopped or (
            self._exhausted and not (self._workers or self._parents or self._suspended or self._ready)
        )

    # --- the reader's side ---

    def begin(self) -> bool:
        """Settle in the running loop; true for the first time."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # only the facade takes a step without a loop: that of a closed client
            raise ClientClosedError("the client is closed") from None
        first = self._loop is None
        if first:
            self._loop = loop
        elif loop is not self._loop:
            raise RuntimeError("a fan-out is read in the event loop in which its reading began")
        return first

    def check_reader(self) -> None:
        """Make sure that reading can go on, and watch the task that reads."""
        if self._reading is not None:
            raise RuntimeError("this fan-out is being read by another task: give each task one of its own")
        if self.failed:
            raise RuntimeError("this fan-out ended before its last item, by an error or a cancellation")
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
        """End with a reader that was cancelled while it did something else: its traceback may keep all alive."""
        self._reader = None  # its error's traceback keeps what it read, which would keep the tasks
        if reader.cancelled():
            self.failed = True
            self.cancel()

    async def take(self) -> list[tuple[P, _Batch[C]]]:
        """Wait for pages, or for a parent to be done; return the pages that are ready, but no more than enough."""
        self._fill()
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
                del error  # its traceback has this frame: they would keep each other
        pages, count = [], 0
        while self._ready and count < self._enough:
            pages.append(self._ready.popleft())
            count += len(pages[-1][1])
        self._waiting -= count
        self._reported = self._done
        self._fill()
        return pages

    async def stop(self) -> None:
        """End the tasks, and wait for their end; then close what was set aside."""
        self.cancel()
        while running := [task for task in self._tasks() if not task.done()]:
            if running == [asyncio.current_task()]:
                break
            await asyncio.wait(running)
        aside = [batches for _, batches in self._suspended]
        self._suspended.clear()
        for batches in (*aside, self._source):
            if isinstance(batches, _Nested | _Single):
                await batches.aclose()

    def cancel(self) -> None:
        """End the tasks."""
        if self._stopped:
            return
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
        """End the tasks from wherever the garbage collector runs."""
        if self._loop is not None and not self._stopped:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.cancel)

    # --- the tasks' side ---

    def _fill(self) -> None:
        """Have as much under way as is wanted now."""
        if self._stopped or self._error is not None or self._waiting >= self._enough:
            return
        if self._lister is None and not self._exhausted and len(self._parents) < self._concurrency:
            self._lister = self._start(self._list_parents())
        wanted = len(self._parents) + len(self._suspended)
        for _ in range(min(wanted, self._concurrency - len(self._workers))):
            self._workers.add(self._start(self._list_children()))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not by the loop's factory: an eager one would run it before it is counted.
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
        """List until all are there, or there is enough: it is then set aside."""
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


# --- any iterable, as batches ---


class _Nested(Generic[P, C]):
    """The batches of another fan-out."""

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
    """An asynchronous iterable, item by item: the next may take a while."""

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
    """A plain iterable, a chunk at once: it comes without waiting."""

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
            self._items = _failing(error)  # what came before it comes first
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _failing(error: Exception) -> Iterator[Any]:
    try:
        raise error
    finally:
        del error  # its traceback has this frame: they would keep each other
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
