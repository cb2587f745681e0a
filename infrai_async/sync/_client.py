"""The blocking client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property, partial
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from yarl import URL

from infrai_async._client import AsyncInfrai, grace_seconds, hidden_proxy, not_copyable, view_of
from infrai_async._display.progress import Progress
from infrai_async._listing.fan_out import OnError
from infrai_async._misuse import explain_with
from infrai_async._protocol.config import hidden, hidden_headers
from infrai_async._protocol.request import UNSET, Unset
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import Budget, Deadline, Operation, Scoped
from infrai_async._transport.keys import KeySource
from infrai_async._transport.pool import Pool
from infrai_async._transport.stats import Stats
from infrai_async.models import Model, Page
from infrai_async.sync._facade import Facade
from infrai_async.sync._many import FanOut, fan_out
from infrai_async.sync._resources import Account, Cdn, Db, Discovery, Flags, Storage
from infrai_async.sync._runner import Runner

if TYPE_CHECKING:
    from infrai_async._observability.reporter import OnEvent
else:  # for ``get_type_hints``; the classes of events take time to build
    OnEvent = Callable[[object], object]

P = TypeVar("P")
C = TypeVar("C")


class Infrai(Facade[AsyncInfrai], Scoped):
    """The blocking client of the Infrai API: for scripts, threads and notebooks.

    It runs the asynchronous client in an event loop of its own, in a thread that starts with the first call. It
    therefore also works inside a running event loop (which it blocks, as any blocking call does) and from any number
    of threads at once, over one connection pool. Close it with ``with Infrai() as client`` or ``client.close()``; a
    client that is never closed is closed when the interpreter exits. After a fork, the child opens its own
    connections. Ctrl-C aborts a call at once, and the client remains usable.

    Args:
        api_key: the API key, or a plain or asynchronous function that returns it and is called again after a 401
            response, for key rotation. Defaults to ``INFRAI_API_KEY``, then to the credentials file
            ``~/.infrai/credentials``; both are read when the first call needs the key.
            A function runs in the client's event loop, so it must not block.
        base_url: URL of the API, with or without ``/v1``. Defaults to ``INFRAI_BASE_URL``, then to
            ``https://api.infrai.cc``.
        timeout: time limit in seconds for one whole call: waiting for a slot in the pool, all attempts and the
            pauses between them. ``None`` means no limit.
        retry: when and how often a failed call is sent again.
        max_concurrency: maximum number of calls in flight; further calls wait in order of arrival.
        proxy: URL of an HTTP proxy, with its user and password if it wants any. SOCKS is not supported.
        trust_env: whether to take the proxy from the environment: from ``https_proxy``, ``http_proxy`` or
            ``all_proxy``, unless ``no_proxy`` exempts the service. The variables are read at the first call.
        ssl: TLS context, for example with a company's certificate authority. Defaults to one that trusts what the
            system, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name when the client is created.
        allow_http: whether to allow plain http to hosts other than loopback.
        headers: headers sent with every call. A ``User-Agent`` is prepended to the client's own; authorization,
            content type and idempotency key cannot be overridden.
        on_event: function called with each event of each call (see ``Event``). It runs in the client's event loop, in
            another thread, so it must not block. An exception it raises is logged and does not affect the call.

    Raises:
        ConfigurationError: ``base_url``, ``proxy`` or ``ssl`` is unusable, or settings contradict each other.
        InvalidArgument: another argument is invalid.
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
        # First, so that a traceback that prints local variables cannot show the key or a password.
        api_key, base_url, proxy = hidden(api_key), hidden(base_url), hidden_proxy(proxy)
        headers = hidden_headers(headers)
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
        super().__init__(async_client, Runner(async_client._dispatcher.pool.settings.origin))

    def _scope(self) -> Pool:
        return self._async._scope()

    def __repr__(self) -> str:
        async_client = getattr(self, "_async", None)  # absent in the traceback of an argument that was refused
        return "<Infrai>" if async_client is None else repr(async_client).replace("AsyncInfrai", "Infrai", 1)

    @cached_property
    def db(self) -> Db:
        """Postgres: projects, branches and snapshots."""
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
        """Feature flags and rollouts."""
        return Flags(self._async.flags, self._runner)

    @cached_property
    def account(self) -> Account:
        """The wallet, and activation of a trial account."""
        return Account(self._async.account, self._runner)

    @cached_property
    def discovery(self) -> Discovery:
        """The capabilities that the service offers; needs no API key."""
        return Discovery(self._async.discovery, self._runner)

    @property
    def stats(self) -> Stats:
        """Counters of the connection pool, over all views of this client."""
        return self._async.stats

    def call(
        self,
        capability: str,
        arguments: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Model | Page[Model]:
        """Call a capability by its documented id.

        Args:
            capability: capability id, for example ``"db.project.get"``.
            arguments: arguments of the capability, by their documented names.
            idempotency_key: value of the ``Idempotency-Key`` header, for calls that change something; generated when
                omitted.

        Returns:
            The model that the method of the same name returns; for a list, one ``Page``.

        Raises:
            InvalidArgument: the capability is unknown, or an argument is invalid; nothing was sent.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.call, capability, arguments, idempotency_key=idempotency_key))

    def fan_out(
        self,
        parents: Iterable[P],
        children: Callable[[P], Iterable[C]],
        *,
        concurrency: int = 32,
        on_error: OnError[P] = None,
        progress: Progress = False,
    ) -> FanOut[P, C]:
        """List the children of many parents concurrently: the blocking equivalent of ``infrai_async.fan_out``.

        Read it with ``for parent, child in client.fan_out(...)``. Every child is yielded exactly once, as soon as it
        has arrived: children of one parent in order, children of different parents in any order. Nothing is sent
        until the result is read, and only a bounded number of children is fetched ahead of the reader.

        Args:
            parents: a cursor of this client, or any other iterable, including another fan-out.
            children: function called with a parent that returns such an iterable of its children. Like
                ``on_error``, it runs in the client's event loop, so it must neither block nor make calls with this
                client.
            concurrency: maximum number of parents whose children are listed at once.
            on_error: plain or asynchronous function, called with a parent and the error that ended the listing of its
                children; the fan-out then continues. Without it the first error ends the fan-out. An error in
                ``parents`` itself always does.
            progress: ``True`` for a progress bar, or a function called with ``(done, total)``: the number of parents
                whose children are complete, and of all parents, which is ``None`` until they are all listed.

        Returns:
            A ``FanOut``, an iterator of ``(parent, child)`` pairs.

        Raises:
            InvalidArgument: an argument is invalid.
        """
        return fan_out(self._runner, parents, children, concurrency=concurrency, on_error=on_error, progress=progress)

    def with_options(
        self,
        *,
        timeout: float | timedelta | Unset | None = UNSET,
        retry: RetryPolicy | Unset = UNSET,
        headers: Mapping[str, str] | Unset = UNSET,
        budget: Budget | Unset = UNSET,
        deadline: Deadline | Unset = UNSET,
        operation: Operation | Unset = UNSET,
    ) -> Self:
        """Return a view of this client with other settings. It shares the connection pool and need not be closed.

        A view that carries a block makes its calls in that block wherever they are made: in another thread, or in a web
        framework that runs a dependency and its request in different contexts. Inside the block itself nothing counts
        twice. When the block is left, it is over for the view too. A block that was never entered has no end; the time
        of such a deadline starts now. Blocks nest: a view of the view keeps this one's.

        Args:
            timeout: time limit in seconds for one whole call; ``None`` means no limit.
            retry: when and how often a failed call is sent again.
            headers: headers sent with every call, in place of this client's.
            budget: the budget that the view's calls are charged to: ``spent`` in ``with client.budget(...) as spent``.
            deadline: the deadline of all calls of the view together, from ``client.deadline(...)``.
            operation: the operation of the view's calls, from ``client.operation(...)``.

        Returns:
            A client of the same class, with the attributes that this one has now; omitted settings are those of this
            client.

        Raises:
            InvalidArgument: an argument is invalid, or a block of another client, or has been left.
        """
        headers = hidden_headers(headers)
        async_view = self._async.with_options(
            timeout=timeout, retry=retry, headers=headers, budget=budget, deadline=deadline, operation=operation
        )
        view = view_of(self)
        view._is_view = True
        view._async = async_view
        return view

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of this client without the API key, for ``Infrai(key, **client.settings)`` elsewhere.

        The timeout, retries and headers are those of this view; blocks that it carries are left out. The password of a
        proxy and the values of headers are strings that work, and that the repr hides. Another process can take what
        pickles: not ``ssl``, nor a local function as ``on_event``.
        """
        return self._async.settings

    def __reduce__(self) -> NoReturn:
        raise not_copyable(self)

    def close(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and all views of it. Closing is idempotent.

        New calls and calls that wait for a slot in the pool are refused at once with ``ClientClosedError``. Calls in
        flight in other threads may finish within ``grace``, then fail with ``TransportError``.

        Args:
            grace: time in seconds for calls in flight to finish; 0 aborts them at once.

        Raises:
            InvalidArgument: ``grace`` is not a duration.
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


explain_with(Infrai, "Infrai")
