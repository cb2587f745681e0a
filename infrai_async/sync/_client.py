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
    """The blocking client of the Infrai API: for scripts, threads and notebooks.

    It is the asynchronous client, run in an event loop of its own, in a thread that starts with the first call: so it
    works inside a running event loop too (where it blocks that loop, as any blocking call does), and from any number
    of threads at once, over one pool. Use it as ``with Infrai() as client``, or call ``close``; one that is never
    closed is closed when the interpreter exits. A forked child starts with fresh connections. Ctrl-C ends a call at
    once, and the client stays usable.

    Args:
        api_key: the key, or a function (plain or asynchronous) that gives one and is asked again after a 401; else
            ``INFRAI_API_KEY``, else the credentials file ``~/.infrai/credentials``. Looked for when a call needs it.
            A function runs in the client's own event loop, so it must not block.
        base_url: where the API is, with or without ``/v1``; else ``INFRAI_BASE_URL``, else the service itself.
        timeout: seconds for one whole call: waiting for a place in the pool, every attempt, every pause between
            them. ``None``: no limit.
        retry: how often and when a call is sent again.
        max_concurrency: how many calls are in flight at once; the rest wait, first come first served.
        proxy: as aiohttp takes it.
        trust_env: whether to take the proxy from the environment.
        ssl: a TLS context of yours, for a company's certificates.
        allow_http: whether plain http may go to another machine than this one.
        headers: sent with every call; a ``User-Agent`` is put before ours. Authorization, content type and
            idempotency key stay ours.
        on_event: called with each event of each call (see ``Event``) in the client's own event loop, which is another
            thread's, so it must not block. What it raises is logged, and does not touch the call.

    Raises:
        ConfigurationError: ``base_url`` is unusable, or settings exclude each other.
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
            api_key = Secret(api_key)  # first of all, so that no dump of this frame shows it
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
        """Postgres: projects, branches, snapshots."""
        return Db(self._async.db, self._runner)

    @cached_property
    def storage(self) -> Storage:
        """Object storage: buckets and presigned URLs."""
        return Storage(self._async.storage, self._runner)

    @cached_property
    def cdn(self) -> Cdn:
        """Content delivery: distributions and their caches."""
        return Cdn(self._async.cdn, self._runner)

    @cached_property
    def flags(self) -> Flags:
        """Feature flags and roll-outs."""
        return Flags(self._async.flags, self._runner)

    @cached_property
    def account(self) -> Account:
        """The wallet, and a first key."""
        return Account(self._async.account, self._runner)

    @cached_property
    def discovery(self) -> Discovery:
        """What the service offers; needs no key."""
        return Discovery(self._async.discovery, self._runner)

    @property
    def stats(self) -> Stats:
        """What the pool did so far, over all views of this client."""
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
        """List the children of every parent, many parents at a time: ``infrai_async.fan_out`` for a thread that waits.

        Read it by ``for parent, child in client.fan_out(...)``. Every child comes exactly once, as soon as it is
        there: the children of one parent in their order, those of different parents in any. Nothing is sent until it
        is read, and no more is fetched than the reader keeps up with.

        Args:
            parents: a cursor of this client, or any other iterable; another fan-out too.
            children: called with a parent, gives such an iterable of its children. It runs in the client's own event
                loop, and so does ``on_error``: neither may block, or make a call of this client.
            concurrency: how many parents' children are listed at once.
            on_error: called with a parent and the error that its children ended in, plain or asynchronous, and the
                rest goes on. Without it the first error ends everything. An error of the parents' own listing always
                does.
            progress: ``True`` for a bar, or a function that is called with ``(done, total)``: parents whose children
                are all there, and parents in all, which is ``None`` until those are all listed.

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
        """Return a view of this client with other settings over the same pool; it needs no closing.

        Args:
            timeout: seconds for one whole call, ``None`` for no limit.
            retry: how often and when a call is sent again.
            headers: sent with every call, instead of this client's.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        view = object.__new__(type(self))
        view._is_view = True
        view._runner = self._runner
        view._async = self._async.with_options(timeout=timeout, retry=retry, headers=headers)
        return view

    def close(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and every view of it; calling it again does nothing more.

        New calls are refused at once, and so are those that wait for a place; those in flight in other threads get
        ``grace`` seconds, then end with a ``TransportError``.

        Args:
            grace: seconds; zero ends them at once.

        Raises:
            InvalidArgument: ``grace`` is no length of time.
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
