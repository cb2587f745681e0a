"""The asynchronous client: its settings and its resources."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property, partial
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import MemberDescriptorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

import aiohttp
from yarl import URL

from infrai_async._dispatch import Dispatcher, Options
from infrai_async._event_loop import require_task
from infrai_async._misuse import explain_async_with
from infrai_async._protocol.config import Secret, hidden, hidden_headers
from infrai_async._protocol.config import base_url as resolve_base_url
from infrai_async._protocol.proxies import check_proxy
from infrai_async._protocol.request import UNSET, Unset, check_names, seconds
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import Budget, Deadline, Operation, Scoped, carry
from infrai_async._transport.headers import HeaderSet
from infrai_async._transport.keys import KeySource
from infrai_async._transport.pool import Pool, PoolSettings
from infrai_async._transport.stats import Stats
from infrai_async._version import __version__
from infrai_async.capabilities import CAPABILITIES
from infrai_async.errors import ConfigurationError, InvalidArgument
from infrai_async.models import Model, Page
from infrai_async.resources._account import Account
from infrai_async.resources._cdn import Cdn
from infrai_async.resources._db import Db
from infrai_async.resources._discovery import Discovery
from infrai_async.resources._flags import Flags
from infrai_async.resources._storage import Storage

if TYPE_CHECKING:
    from infrai_async._observability.reporter import Listener, OnEvent
else:  # for ``get_type_hints``; the classes of events take time to build
    OnEvent = Callable[[object], object]

_OURS: Final = "infrai_async."
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
# Headers that frame messages, manage the connection, or change what a response is.
_PROTOCOL: Final = re.compile(
    r"accept-encoding|connection|content-(encoding|length)|expect|host|http2-settings|if-.*|keep-alive"
    r"|proxy-(authorization|connection)|range|te|trailer|transfer-encoding|upgrade",
    re.IGNORECASE,
).fullmatch
_USER_AGENT: Final = f"infrai-async/{__version__} python/{platform.python_version()} aiohttp/{aiohttp.__version__}"


class AsyncInfrai(Scoped):
    """The asynchronous client of the Infrai API.

    It can be built anywhere, outside any event loop, and used from several loops, one after another or at the same
    time. These are loops of asyncio; under trio, use ``Infrai`` in a thread. After a fork, the child opens its own
    connections. Close it with ``async with AsyncInfrai() as client`` or ``await client.aclose()``; a client that is
    never closed releases its connections when its event loops end.

    Args:
        api_key: the API key, or a plain or asynchronous function that returns it and is called again after a 401
            response, for key rotation. Defaults to ``INFRAI_API_KEY``, then to the credentials file
            ``~/.infrai/credentials``; both are read when the first call needs the key.
        base_url: URL of the API, with or without ``/v1``. Defaults to ``INFRAI_BASE_URL``, then to
            ``https://api.infrai.cc``.
        timeout: time limit in seconds for one whole call: waiting for a slot in the pool, all attempts and the
            pauses between them. ``None`` means no limit.
        retry: when and how often a failed call is sent again.
        max_concurrency: maximum number of calls in flight; further calls wait in order of arrival.
        session: aiohttp session to borrow; it is neither closed nor modified. Calls use its connector, middlewares,
            tracing, default headers and cookies. When a reused connection of a borrowed session breaks, aiohttp may
            itself send a GET, PUT or DELETE again; such repeats do not appear in an error's ``attempts``. Its idle
            connections are reused as aiohttp does it, even if bytes that nobody asked for have arrived on one.
        proxy: URL of an HTTP proxy, with its user and password if it wants any. SOCKS is not supported.
        trust_env: whether to take the proxy from the environment: from ``https_proxy``, ``http_proxy`` or
            ``all_proxy``, unless ``no_proxy`` exempts the service. The variables are read at the first call.
        ssl: TLS context, for example with a company's certificate authority. Defaults to one that trusts what the
            system, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name when the client is created.
        allow_http: whether to allow plain http to hosts other than loopback.
        headers: headers sent with every call. A ``User-Agent`` is prepended to the client's own; authorization,
            content type and idempotency key cannot be overridden.
        on_event: function called with each event of each call (see ``Event``). It runs in the event loop, so it must
            not block. An exception it raises is logged and does not affect the call.

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
        session: aiohttp.ClientSession | None = None,
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
        if api_key is not None and not isinstance(api_key, str) and not callable(api_key):
            raise ConfigurationError("api_key must be a string or a function that returns one")
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise InvalidArgument("max_concurrency must be a whole number, 1 or more")
        for name, value in (("trust_env", trust_env), ("allow_http", allow_http)):
            if not isinstance(value, bool):  # a word such as "no" would count as true
                raise InvalidArgument(f"{name} must be True or False")
        _check_transport(session, proxy, ssl, trust_env=trust_env)
        settings = PoolSettings(
            origin=resolve_base_url(base_url, os.environ, allow_http=allow_http),
            api_key=api_key,
            max_concurrency=max_concurrency,
            session=session,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            allow_http=allow_http,
            listener=_listener(on_event),
        )
        self._dispatcher = Dispatcher(
            Pool(settings), Options(_time_limit(timeout), _policy(retry), _header_set(headers))
        )

    def _scope(self) -> Pool:
        return self._dispatcher.pool

    def __repr__(self) -> str:
        dispatcher = getattr(self, "_dispatcher", None)  # absent in the traceback of an argument that was refused
        return "<AsyncInfrai>" if dispatcher is None else f"<AsyncInfrai {dispatcher.pool.settings.origin}>"

    @cached_property
    def db(self) -> Db:
        """Postgres: projects, branches and snapshots."""
        return Db(self._dispatcher)

    @cached_property
    def storage(self) -> Storage:
        """Object storage: buckets and presigned URLs."""
        return Storage(self._dispatcher)

    @cached_property
    def cdn(self) -> Cdn:
        """Content delivery: distributions and their caches."""
        return Cdn(self._dispatcher)

    @cached_property
    def flags(self) -> Flags:
        """Feature flags and rollouts."""
        return Flags(self._dispatcher)

    @cached_property
    def account(self) -> Account:
        """The wallet, and activation of a trial account."""
        return Account(self._dispatcher)

    @cached_property
    def discovery(self) -> Discovery:
        """The capabilities that the service offers; needs no API key."""
        return Discovery(self._dispatcher)

    @property
    def stats(self) -> Stats:
        """Counters of the connection pool, over all views of this client."""
        return self._dispatcher.pool.stats()

    async def call(
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
        if not isinstance(capability, str):
            raise InvalidArgument("capability must be an id such as 'db.project.get'")
        known = CAPABILITIES.get(capability)
        if known is None:
            alike = filter(partial(_does_likewise, capability), CAPABILITIES)
            close = difflib.get_close_matches(capability, alike, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "see infrai_async.CAPABILITIES"
            raise InvalidArgument(f"capability {capability!r} is unknown to this version: {advice}")
        given = check_names(known, arguments)
        idempotency_key = _one_key(known.mutates, given, idempotency_key)
        if known.paged:
            return await self._dispatcher.page(known, given)
        return await self._dispatcher.call(known, given, idempotency_key)

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
        pool, now = self._dispatcher.pool, self._dispatcher.options
        given = {"budget": budget, "deadline": deadline, "operation": operation}
        options = Options(
            now.timeout if isinstance(timeout, Unset) else _time_limit(timeout),
            now.retry if isinstance(retry, Unset) else _policy(retry),
            now.headers if isinstance(headers, Unset) else _header_set(headers),
            carry(pool, now.carried, **{name: block for name, block in given.items() if not isinstance(block, Unset)}),
        )
        view = view_of(self)
        view._is_view = True
        view._dispatcher = Dispatcher(pool, options)
        return view

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of this client without the API key, for ``AsyncInfrai(key, **client.settings)`` elsewhere.

        The timeout, retries and headers are those of this view; blocks that it carries are left out. ``session`` is
        there only if it was given, so that ``Infrai`` takes the rest too. The password of a proxy and the values of
        headers are strings that work, and that the repr hides. Another process can take what pickles: not ``ssl``,
        ``session`` or a local function as ``on_event``.
        """
        pool, options = self._dispatcher.pool.settings, self._dispatcher.options
        session = {} if pool.session is None else {"session": pool.session}
        return {
            "base_url": f"{pool.origin}/v1" if pool.origin.endswith("/v1") else pool.origin,  # one is removed again
            "timeout": None if math.isinf(options.timeout) else options.timeout,
            "retry": options.retry,
            "max_concurrency": pool.max_concurrency,
            **session,
            "proxy": None if pool.proxy is None else Secret(pool.proxy),
            "trust_env": pool.trust_env,
            "ssl": pool.ssl,
            "allow_http": pool.allow_http,
            "headers": {name: Secret(value) for name, value in options.headers.given.items()} or None,
            "on_event": None if pool.listener is None else pool.listener.on_event,
        }

    def __reduce__(self) -> NoReturn:
        raise not_copyable(self)

    async def aclose(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and all views of it. Closing is idempotent.

        New calls and calls that wait for a slot in the pool are refused at once with ``ClientClosedError``. Calls in
        flight may finish within ``grace``, then fail with ``TransportError``.

        Args:
            grace: time in seconds for calls in flight to finish; 0 aborts them at once.

        Raises:
            InvalidArgument: ``grace`` is not a duration.
            ConfigurationError: no task of asyncio is running; the client remains open.
        """
        seconds = grace_seconds(grace)
        require_task()
        await self._dispatcher.pool.close(seconds)

    async def __aenter__(self) -> Self:
        require_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_view:
            await self.aclose()


explain_async_with(AsyncInfrai, "AsyncInfrai")


def _does_likewise(wanted: str, known: str) -> bool:
    """Return whether the verbs of two ids are alike, so that no deletion is suggested for a read."""
    verb = known.rpartition(".")[2]
    return bool(difflib.get_close_matches(wanted.rpartition(".")[2], [verb], n=1))


def _one_key(mutates: bool, arguments: dict[str, object], given: str | None) -> str | None:
    """Return the idempotency key of a generic call, given as a parameter or, as documented, among the arguments."""
    among_arguments = arguments.pop("idempotency_key", None)
    key = given if given is not None else among_arguments
    if key is not None and not mutates:
        raise InvalidArgument("idempotency_key is for calls that change something, and this one only reads: omit it")
    if given is not None and among_arguments not in (None, given):
        raise InvalidArgument("idempotency_key differs between the arguments and the parameter: pass it once")
    return key  # type: ignore[return-value] # checked with the request, like every argument


C = TypeVar("C", bound=Scoped)


def view_of(client: C) -> C:
    """Return another client of the same class with the same state, which its maker then changes.

    A subclass has state of its own, in attributes and slots, also in place of ours. What is computed once and kept is
    computed anew, because it may belong to the settings of this client.
    """
    cls = type(client)
    view = object.__new__(cls)
    computed = {
        name: base.__module__.startswith(_OURS)
        for base in reversed(cls.__mro__)
        for name, kept in vars(base).items()
        if isinstance(kept, cached_property)
    }
    view.__dict__.update(
        {
            name: value
            for name, value in vars(client).items()
            if name not in computed or (computed[name] and not type(value).__module__.startswith(_OURS))
        }
    )
    for slot in (
        slot for base in cls.__mro__ for slot in vars(base).values() if isinstance(slot, MemberDescriptorType)
    ):
        with contextlib.suppress(AttributeError):  # a slot that has not been set
            slot.__set__(view, slot.__get__(client, cls))
    return view


def not_copyable(client: object) -> TypeError:
    """Return the error for pickling or copying a client, whose connections belong to one process."""
    name = type(client).__name__
    return TypeError(
        f"{name} cannot be pickled or copied, because its connections belong to this process: make one in each "
        f"process, such as {name}(key, **settings) with client.settings; with_options() gives a view"
    )


def _check_transport(session: object, proxy: object, ssl: object, *, trust_env: bool) -> None:
    if session is not None and not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session must be an aiohttp.ClientSession")
    if session is not None and (proxy is not None or ssl is not None or trust_env):
        raise ConfigurationError("proxy, ssl and trust_env cannot be combined with session: set them on the session")
    if ssl is not None and (not isinstance(ssl, SSLContext) or ssl.protocol is PROTOCOL_TLS_SERVER):
        raise ConfigurationError(
            "ssl must be an ssl.SSLContext for clients, such as ssl.create_default_context(cafile=...)"
        )
    if proxy is not None:
        check_proxy(proxy, "proxy")


def hidden_proxy(proxy: str | URL | None) -> str | None:
    """Return a proxy's URL as a string whose repr does not show its password."""
    return hidden(str(proxy) if isinstance(proxy, URL) else proxy)


def _time_limit(timeout: float | timedelta | None) -> float:
    return math.inf if timeout is None else seconds("timeout", timeout)


def grace_seconds(grace: float | timedelta) -> float:
    """Return the grace period of closing in seconds.

    Raises:
        InvalidArgument: ``grace`` is not a duration.
    """
    is_zero = isinstance(grace, int | float | timedelta) and not grace
    return 0.0 if is_zero and grace is not False else seconds("grace", grace)


def _policy(retry: object) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise InvalidArgument("retry must be a RetryPolicy; RetryPolicy.none() never sends a call twice")
    return retry


def _listener(on_event: OnEvent | None) -> Listener | None:
    if on_event is None:
        return None
    if not callable(on_event) or any(map(inspect.iscoroutinefunction, (on_event, type(on_event).__call__))):
        raise InvalidArgument("on_event must be a plain function that takes one event, not an asynchronous one")
    from infrai_async._observability.reporter import (
        Listener,  # imported only with a listener: its classes take time to build
    )

    return Listener(on_event)


def _header_set(headers: Mapping[str, str] | None) -> HeaderSet:
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidArgument("headers must be a mapping of names to values")
    given = dict(headers or {})
    for name, value in given.items():
        if not isinstance(name, str) or not _HEADER_NAME(name) or _PROTOCOL(name):
            raise InvalidArgument(
                f"headers must not contain {name!r}: it is not a valid header name, or it changes the protocol"
            )
        if not isinstance(value, str) or not value.isprintable():
            raise InvalidArgument(f"headers must map {name!r} to a string of printable characters")
    agents = [given.pop(name) for name in tuple(given) if name.lower() == "user-agent"]
    given["User-Agent"] = " ".join([*agents, _USER_AGENT])
    return HeaderSet(given, dict(headers or {}))
