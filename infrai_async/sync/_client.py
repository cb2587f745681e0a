"""The blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from yarl import URL

from infrai_async._client import AsyncInfrai, grace_seconds
from infrai_async._display.progress import Progress
from infrai_async._listing.fan_out import OnError
from infrai_async._protocol.config import Secret
from infrai_async._protocol.request import UNSET, Unset
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import Scoped
from infrai_async._transport.keys import KeySource
from infrai_async._transport.pool import Pool
from infrai_async._transport.stats import Stats
from infrai_async.sync._facade import Facade, blocking
from infrai_async.sync._many import FanOut, fan_out
from infrai_async.sync._resources import Account, Cdn, Db, Discovery, Flags, Storage
from infrai_async.sync._runner import Runner

if TYPE_CHECKING:
    from infrai_async._observability.reporter import OnEvent

P = TypeVar("P")
C = TypeVar("C")


class Infrai(Facade[AsyncInfrai], Scoped):
    """The blocking client of the Infrai API, for scripts, threads and notebooks.

    It runs the asynchronous client in an event loop of its own, in a background thread that starts with the first
    call. It can therefore be used from any number of threads, which share one connection pool, and even inside a
    running event loop, which it blocks as any blocking call does. Use it as ``with Infrai() as client``, or call
    ``close``. A client that is never closed is closed when the interpreter exits. A forked child process starts with
    fresh connections. Ctrl-C cancels a call at once, and the client remains usable.

    Args:
        api_key: the API key, or a function (plain or async) that returns one and is called again after a 401. If not
            given, the environment variable ``INFRAI_API_KEY`` is used, then the file ``~/.infrai/credentials``. The
            key is looked up when a call first needs it. A function runs in the client's event loop, so it must not
            block.
        base_url: the address of the API, with or without ``/v1``. If not given, the environment variable
            ``INFRAI_BASE_URL`` is used, then ``https://api.infrai.cc``.
        timeout: the time limit for one whole call, in seconds or as a ``timedelta``: waiting for a slot in the pool,
            every attempt, and every pause between attempts. ``None`` means no limit.
        retry: how often and after what delay a failed call is retried.
        max_concurrency: the maximum number of calls in flight. Further calls wait in first-in, first-out order.
        proxy: the URL of an HTTP proxy, as aiohttp takes it.
        trust_env: whether to read the proxy from the environment.
        ssl: the TLS context to use, for example to trust a private certificate authority.
        allow_http: whether the API key may be sent over plain HTTP to a host other than this machine.
        headers: extra headers for every call. A ``User-Agent`` is prepended to the client's own. ``Authorization``,
            ``Content-Type`` and ``Idempotency-Key`` cannot be overridden.
        on_event: called with each event of each call (see ``Event``) in the client's event loop, in another thread,
            so it must not block. An exception that it raises is logged and does not affect the call.

    Raises:
        ConfigurationError: ``base_url`` is unusable, or two settings exclude each other.
        InvalidArgument: another argument is wrong.
    """

    _is_view = False

    def __init__(
        self,
        api_key: KeySource = None,
        *,
        base_url: str | None = None,
        timeout: float | timedelta | None = 60.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        max_concurrency: int = 64,
        proxy: str | URL | None = None,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
        allow_http: bool = False,
        headers: Mapping[str, str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if isinstance(api_key, str):
            api_key = Secret(api_key)  # first, so that no traceback with local variables can show the key
        async_client = AsyncInfrai(
            api_key,
            base_url=base_url,
            timeout=timeout,
            retry=retry,
            max_concurrency=max_concurrency,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            allow_http=allow_http,
            headers=headers,
            on_event=on_event,
        )
        super().__init__(async_client, Runner())

    def _scope(self) -> Pool:
        return self._async._scope()

    def __repr__(self) -> str:
        return repr(self._async).replace("AsyncInfrai", "Infrai", 1)

    @cached_property
    def db(self) -> Db:
        """Managed Postgres: projects, branches and snapshots."""
        return Db(self._async.db, self._runner)

    @cached_property
    def storage(self) -> Storage:
        """Object storage: buckets and presigned URLs."""
        return Storage(self._async.storage, self._runner)

    @cached_property
    def cdn(self) -> Cdn:
        """Content delivery: distributions and their edge caches."""
        return Cdn(self._async.cdn, self._runner)

    @cached_property
    def flags(self) -> Flags:
        """Feature flags and rollouts."""
        return Flags(self._async.flags, self._runner)

    @cached_property
    def account(self) -> Account:
        """The account's wallet, and activation of a trial account."""
        return Account(self._async.account, self._runner)

    @cached_property
    def discovery(self) -> Discovery:
        """The service's own list of its capabilities. It needs no API key."""
        return Discovery(self._async.discovery, self._runner)

    @property
    def stats(self) -> Stats:
        """The counters of the connection pool, summed over all views of this client."""
        return self._async.stats

    @blocking(AsyncInfrai.call)
    def call(self) -> None: ...

    def fan_out(
        self,
        parents: Iterable[P],
        children: Callable[[P], Iterable[C]],
        *,
        concurrency: int = 32,
        on_error: OnError[P] = None,
        progress: Progress = False,
    ) -> FanOut[P, C]:
        """List the children of every parent, many parents concurrently; the blocking form of ``infrai_async.fan_out``.

        Read the result by ``for parent, child in client.fan_out(...)``. Every child is returned exactly once, as soon
        as it is available. The children of one parent keep their order; those of different parents are interleaved.
        Nothing is sent until the result is read, and memory stays bounded: fetching stops while the reader does not
        keep up.

        Args:
            parents: a cursor of this client or another iterable of parents, including another fan-out.
            children: a function that returns a cursor or another iterable of the children of a parent. It runs in the
                client's event loop, as ``on_error`` does: neither may block or make a call of this client.
            concurrency: the maximum number of parents whose children are listed concurrently.
            on_error: a function of a parent and the exception raised while its children were listed, plain or async.
                The fan-out then continues with the other parents. Without it, the first exception ends the fan-out.
                An exception of ``parents`` itself always does.
            progress: ``True`` for a progress bar, or a function that is called with ``(done, total)``: the number of
                parents whose children are all listed, and the number of all parents, which is ``None`` until it is
                known.

        Returns:
            An iterator of pairs of parent and child.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        return fan_out(self._runner, parents, children, concurrency=concurrency, on_error=on_error, progress=progress)

    def with_options(
        self,
        *,
        timeout: float | timedelta | Unset | None = UNSET,
        retry: RetryPolicy | Unset = UNSET,
        headers: Mapping[str, str] | Unset = UNSET,
    ) -> Self:
        """Return a view of this client that has other settings but shares its connection pool.

        A view is cheap to create and does not need to be closed. Settings that are not given stay as they are.

        Args:
            timeout: the time limit for one whole call, in seconds or as a ``timedelta``; ``None`` means no limit.
            retry: how often and after what delay a failed call is retried.
            headers: extra headers for every call; they replace those of this client.

        Returns:
            The view, a client of the same class.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        view = object.__new__(type(self))
        view._is_view = True
        view._runner = self._runner
        view._async = self._async.with_options(timeout=timeout, retry=retry, headers=headers)
        return view

    def close(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and every view of it. Closing is idempotent.

        New calls, and calls that wait for a slot, fail at once with ``ClientClosedError``. Calls in flight in other
        threads get ``grace`` seconds to finish; those that are still running then fail with ``TransportError``.

        Args:
            grace: how long to wait for the calls in flight, in seconds or as a ``timedelta``. Zero ends them at once.

        Raises:
            InvalidArgument: ``grace`` is not a length of time.
            ConfigurationError: called from the client's own event loop, which cannot wait for its own end.
        """
        seconds = grace_seconds(grace)
        self._runner.check_outside()
        pool = self._async._dispatcher.pool
        pool.refuse()
        self._runner.close(pool.close, seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_view:
            self.close()
