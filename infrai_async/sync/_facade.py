"""How a blocking class is declared: each method is a stub, and all else comes from the asynchronous method it names."""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, update_wrapper
from itertools import chain
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, cast, get_args, get_type_hints

from infrai_async._display.progress import Progress, reporting
from infrai_async._listing import cursor
from infrai_async._listing.cursor import Items, check_max_items
from infrai_async.models import JSON, Model, Page
from infrai_async.sync._runner import Runner

A = TypeVar("A")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Model)
Stub: TypeAlias = Callable[[Any], None]


class Facade(Generic[A]):
    """Holds the asynchronous twin, and the runner of the loop in which the twin's methods run."""

    def __init__(self, async_object: A, runner: Runner) -> None:
        self._async = async_object
        self._runner = runner


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]],
) -> Callable[[Stub], Callable[Concatenate[Facade[A], P], R]]:
    """Declare the blocking equivalent of a method: signature, types and docstring are those of ``method``."""

    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        return self._runner.run(partial(method, self._async, *args, **kwargs))

    return lambda stub: declared(stub, call, method)


def paged(
    method: Callable[Concatenate[A, P], cursor.Cursor[T]],
) -> Callable[[Stub], Callable[Concatenate[Facade[A], P], Cursor[T]]]:
    """Declare the blocking equivalent of a listing: the same, but for the cursor, which is a blocking one."""

    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> Cursor[T]:
        __tracebackhide__ = True
        return Cursor(method(self._async, *args, **kwargs), self._runner)

    returns = cast("Any", Cursor)[get_args(get_type_hints(method)["return"])]
    return lambda stub: returning(returns, declared(stub, call, method))


def returning(returns: object, method: Callable[P, R]) -> Callable[P, R]:
    """Give a declared method the return type that it has instead of its twin's."""
    method.__annotations__ = {**get_type_hints(inspect.unwrap(method)), "return": returns}
    vars(method)["__signature__"] = inspect.signature(method).replace(return_annotation=returns)
    return method


def declared(stub: Stub, call: Callable[P, R], method: Callable[..., object]) -> Callable[P, R]:
    """Give ``call`` the name, the signature and the docstring of the method that it stands for."""
    if stub.__name__ != method.__name__:
        raise TypeError(f"{stub.__qualname__} borrows from {method.__qualname__}")
    update_wrapper(call, method)
    call.__module__ = stub.__module__
    return call


class Cursor(Facade[cursor.Cursor[T]], Generic[T]):
    """Every item of a listing, fetched page by page while it is read; each page is one way into the event loop.

    A cursor is read once, as a file is: ``for``, ``next``, ``pages()``, ``page()`` and ``collect()`` all go on from
    where it stands. Leaving a loop early leaves nothing running, and loses nothing either: ``next_cursor`` then still
    names the page whose items were not all handed out.
    """

    def __repr__(self) -> str:
        return repr(self._async)

    @property
    def next_cursor(self) -> str | None:
        """Where to resume: ``list(cursor=...)`` goes on there, in another process too.

        While a page's items are still being handed out it names that page, so that nothing is lost; ``None`` before
        the first page of a fresh listing, and after the last.
        """
        return self._async.next_cursor

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._batches())

    def __next__(self) -> T:
        __tracebackhide__ = True
        for item in self:
            return item
        raise StopIteration

    def _batches(self) -> Iterator[Iterator[T]]:
        """Give what is in hand, page after page: the twin's own iterators, so that both stand at the same item."""
        __tracebackhide__ = True
        async_object = self._async
        yield async_object._items
        while not async_object._fetched_all:
            self._runner.run(async_object._load)
            yield async_object._items

    @blocking(cursor.Cursor[T].page)
    def page(self) -> None: ...

    def pages(self) -> Iterator[Page[T]]:
        """Iterate over pages: ``for page in cursor.pages()``."""
        __tracebackhide__ = True
        while self._async._items_left or not self._async._fetched_all:
            yield self.page()

    def collect(self, *, max_items: int | None = None, progress: Progress = False) -> builtins.list[T]:
        """Return the items that are left as a list; a notebook shows it as a table.

        Args:
            max_items: at most so many; the cursor then stands behind them.
            progress: ``True`` for a bar, or a function that is called with ``(done, total)`` after each page; the
                total is ``None`` until all is done, because the service does not say it.

        Raises:
            InvalidArgument: ``max_items`` is negative or no whole number, or ``progress`` is no function.
            ConfigurationError: ``progress=True`` without tqdm.
            PaginationError: the service handed out a cursor for the second time.
            InfraiError: whatever the calls themselves may raise.
        """
        __tracebackhide__ = True
        limit = check_max_items(max_items)
        async_object = self._async
        found: Items[T] = Items()
        with reporting(progress, async_object._capability) as report:
            while async_object._gather(found, limit, report):
                self._runner.run(async_object._load)
        return found

    def to_records(self, *, max_items: int | None = None, progress: Progress = False) -> builtins.list[dict[str, JSON]]:
        """Return the items that are left as plain dicts, as ``pandas.DataFrame(...)`` takes them.

        Arguments and errors are those of ``collect``. Secrets stand in them in clear.
        """
        __tracebackhide__ = True
        return [item.to_dict() for item in self.collect(max_items=max_items, progress=progress)]
