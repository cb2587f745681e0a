"""The asynchronous client: it checks its settings and offers the API's namespaces as attributes."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import platform
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import aiohttp
from yarl import URL

from infrai_async._dispatch import Dispatcher, Options
from infrai_async._protocol.config import Secret
from infrai_async._protocol.config import base_url as resolve_base_url
from infrai_async._protocol.request import UNSET, Unset, check_names, seconds
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import Scoped
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

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_FRAMING: Final = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})
_USER_AGENT: Final = f"infrai-async/{__version__} python/{platform.python_version()} aiohttp/{aiohttp.__version__}"


class AsyncInfrai(Scoped):
    """The asynchronous client of the Infrai API.

    A client can be created anywhere, even outside an event loop, and used from several event loops, one after another
    or concurrently. A forked child process starts with fresh connections. Use it as
    ``async with AsyncInfrai() as client``, or call ``aclose``. A client that is never closed releases its connections
    when its event loops shut down.

    Args:
        api_key: the API key, or a function (plain or async) that returns one and is called again after a 401. If not
            given, the environment variable ``INFRAI_API_KEY`` is used, then the file ``~/.infrai/credentials``. The
            key is looked up when a call first needs it.
        base_url: the address of the API, with or without ``/v1``. If not given, the environment variable
            ``INFRAI_BASE_URL`` is used, then ``https://api.infrai.cc``.
        timeout: the time limit for one whole call, in seconds or as a ``timedelta``: waiting for a slot in the pool,
            every attempt, and every pause between attempts. ``None`` means no limit.
        retry: how often and after what delay a failed call is retried.
        max_concurrency: the maximum number of calls in flight. Further calls wait in first-in, first-out order.
        session: an ``aiohttp.ClientSession`` to use instead of the client's own. It is never closed or modified.
            Calls go through its connector, middlewares, tracing, default headers and cookies. When a reused
            connection of this session breaks, aiohttp itself may resend a GET, PUT or DELETE; an error's ``attempts``
            cannot show that.
        proxy: the URL of an HTTP proxy, as aiohttp takes it.
        trust_env: whether to read the proxy from the environment.
        ssl: the TLS context to use, for example to trust a private certificate authority.
        allow_http: whether the API key may be sent over plain HTTP to a host other than this machine.
        headers: extra headers for every call. A ``User-Agent`` is prepended to the client's own. ``Authorization``,
            ``Content-Type`` and ``Idempotency-Key`` cannot be overridden.
        on_event: called with each event of each call (see ``Event``) in the event loop, so it must not block. An
            exception that it raises is logged and does not affect the call.

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
        session: aiohttp.ClientSession | None = None,
        proxy: str | URL | None = None,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
        allow_http: bool = False,
        headers: Mapping[str, str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if isinstance(api_key, str):
            api_key = Secret(api_key)  # first, so that no traceback with local variables can show the key
        elif api_key is not None and not callable(api_key):
            raise ConfigurationError("api_key must be a string or a function that returns one")
        if isinstance(max_concurrency, bool) or not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise InvalidArgument("max_concurrency must be a whole number, 1 or more")
        _check_transport(session, proxy, ssl, trust_env=trust_env)
        settings = PoolSettings(
            origin=resolve_base_url(base_url, os.environ, allow_http=allow_http),
            api_key=api_key,
            max_concurrency=max_concurrency,
            session=session,
            proxy=proxy,
            trust_env=trust_env,
            ssl=ssl,
            listener=_listener(on_event),
        )
        self._dispatcher = Dispatcher(
            Pool(settings), Options(_time_limit(timeout), _policy(retry), _header_set(headers))
        )

    def _scope(self) -> Pool:
        return self._dispatcher.pool

    def __repr__(self) -> str:
        return f"<AsyncInfrai {self._dispatcher.pool.settings.origin}>"

    @cached_property
    def db(self) -> Db:
        """Managed Postgres: projects, branches and snapshots."""
        return Db(self._dispatcher)

    @cached_property
    def storage(self) -> Storage:
        """Object storage: buckets and presigned URLs."""
        return Storage(self._dispatcher)

    @cached_property
    def cdn(self) -> Cdn:
        """Content delivery: distributions and their edge caches."""
        return Cdn(self._dispatcher)

    @cached_property
    def flags(self) -> Flags:
        """Feature flags and rollouts."""
        return Flags(self._dispatcher)

    @cached_property
    def account(self) -> Account:
        """The account's wallet, and activation of a trial account."""
        return Account(self._dispatcher)

    @cached_property
    def discovery(self) -> Discovery:
        """The service's own list of its capabilities. It needs no API key."""
        return Discovery(self._dispatcher)

    @property
    def stats(self) -> Stats:
        """The counters of the connection pool, summed over all views of this client."""
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
            capability: the capability's id, for example ``"db.project.get"``.
            arguments: the arguments, by their documented names.
            idempotency_key: the idempotency key of a call that changes something. A fresh key by default.

        Returns:
            The model that the method of the same name returns. For a listing, one page of models.

        Raises:
            InvalidArgument: the capability is unknown, or an argument is wrong. Nothing was sent.
            InfraiError: the call failed.
        """
        known = CAPABILITIES.get(capability)
        if known is None:
            close = difflib.get_close_matches(capability, CAPABILITIES, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "see infrai_async.CAPABILITIES"
            raise InvalidArgument(f"{capability!r} is not a capability that this version knows: {advice}")
        by_name = dict(arguments or {})
        idempotency_key = _resolve_idempotency_key(known.mutates, by_name, idempotency_key)
        by_name = check_names(known, by_name)
        if known.paged:
            return await self._dispatcher.page(known, by_name)
        return await self._dispatcher.call(known, by_name, idempotency_key)

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
        dispatcher = self._dispatcher
        current = dispatcher.options
        view = object.__new__(type(self))
        view._is_view = True
        view._dispatcher = Dispatcher(
            dispatcher.pool,
            Options(
                current.timeout if isinstance(timeout, Unset) else _time_limit(timeout),
                current.retry if isinstance(retry, Unset) else _policy(retry),
                current.headers if isinstance(headers, Unset) else _header_set(headers),
            ),
        )
        return view

    async def aclose(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and every view of it. Closing is idempotent.

        New calls, and calls that wait for a slot, fail at once with ``ClientClosedError``. Calls in flight get
        ``grace`` seconds to finish; those that are still running then fail with ``TransportError``.

        Args:
            grace: how long to wait for the calls in flight, in seconds or as a ``timedelta``. Zero ends them at once.

        Raises:
            InvalidArgument: ``grace`` is not a length of time.
        """
        await self._dispatcher.pool.close(grace_seconds(grace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_view:
            await self.aclose()


def _resolve_idempotency_key(mutates: bool, arguments: dict[str, object], keyword: str | None) -> str | None:
    """Take the idempotency key of a generic call from its keyword or from ``arguments``, where the API documents it."""
    listed = arguments.pop("idempotency_key", None)
    key = keyword if keyword is not None else listed
    if key is not None and not mutates:
        raise InvalidArgument("idempotency_key is only for calls that change something; leave it out of this read")
    if keyword is not None and listed not in (None, keyword):
        raise InvalidArgument("idempotency_key has two different values; pass it once")
    return key  # type: ignore[return-value] # checked with the request, like every argument


def _check_transport(session: object, proxy: object, ssl: object, *, trust_env: bool) -> None:
    if session is not None and not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session must be an aiohttp.ClientSession")
    if session is not None and (proxy is not None or ssl is not None or trust_env):
        raise ConfigurationError("proxy, ssl and trust_env cannot be combined with session: configure the session")
    if ssl is not None and not isinstance(ssl, SSLContext):
        raise ConfigurationError("ssl must be an ssl.SSLContext, such as ssl.create_default_context(cafile=...)")
    if proxy is not None and not _is_proxy(proxy):
        raise ConfigurationError("proxy must be the URL of an HTTP proxy, such as http://proxy.example:3128")


def _is_proxy(proxy: object) -> bool:
    try:
        url = URL(proxy) if isinstance(proxy, str) else proxy
    except ValueError:
        return False
    return isinstance(url, URL) and url.scheme in ("http", "https") and bool(url.host)


def _time_limit(timeout: float | timedelta | None) -> float:
    return math.inf if timeout is None else seconds("timeout", timeout)


def grace_seconds(grace: float | timedelta) -> float:
    """Return the grace period in seconds; unlike other durations it may be zero.

    Raises:
        InvalidArgument: ``grace`` is not a length of time.
    """
    return 0.0 if grace in (0, timedelta(0)) else seconds("grace", grace)


def _policy(retry: object) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise InvalidArgument("retry must be a RetryPolicy; pass RetryPolicy.none() to switch retries off")
    return retry


def _listener(on_event: OnEvent | None) -> Listener | None:
    if on_event is None:
        return None
    if not callable(on_event) or any(map(inspect.iscoroutinefunction, (on_event, type(on_event).__call__))):
        raise InvalidArgument("on_event must be a plain function of one event, not an async one")
    from infrai_async._observability.reporter import (
        Listener,  # imported only when used: creating the event classes takes time
    )

    return Listener(on_event)


def _header_set(headers: Mapping[str, str] | None) -> HeaderSet:
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidArgument("headers must be a mapping of header names to values")
    extra = dict(headers or {})
    for name, value in extra.items():
        if not isinstance(name, str) or not _HEADER_NAME(name) or name.lower() in _FRAMING:
            raise InvalidArgument(
                f"headers must not contain {name!r}: it is not a valid header name, or the transport sets it"
            )
        if not isinstance(value, str) or not value.isprintable():
            raise InvalidArgument(f"headers must map {name} to a string without line breaks")
    agents = [extra.pop(name) for name in tuple(extra) if name.lower() == "user-agent"]
    extra["User-Agent"] = " ".join([*agents, _USER_AGENT])
    return HeaderSet(extra)
