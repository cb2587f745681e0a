"""The client: settings in, namespaces out."""

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

    It can be built anywhere, outside any event loop, and used from several loops, one after another or at once; a
    forked child starts with fresh connections. Use it as ``async with AsyncInfrai() as client``, or call ``aclose``;
    one that is never closed leaves nothing behind either when its loops end.

    Args:
        api_key: the key, or a function (plain or asynchronous) that gives one and is asked again after a 401; else
            ``INFRAI_API_KEY``, else the credentials file ``~/.infrai/credentials``. Looked for when a call needs it.
        base_url: where the API is, with or without ``/v1``; else ``INFRAI_BASE_URL``, else the service itself.
        timeout: seconds for one whole call: waiting for a place in the pool, every attempt, every pause between
            them. ``None``: no limit.
        retry: how often and when a call is sent again.
        max_concurrency: how many calls are in flight at once; the rest wait, first come first served.
        session: a session of yours: borrowed, never closed, never changed. Calls then go through its connector,
            middlewares, tracing, default headers and cookies. When a reused connection of such a session breaks,
            aiohttp itself may send a GET, PUT or DELETE again, which the attempts of an error cannot show.
        proxy: as aiohttp takes it.
        trust_env: whether to take the proxy from the environment.
        ssl: a TLS context of yours, for a company's certificates.
        allow_http: whether plain http may go to another machine than this one.
        headers: sent with every call; a ``User-Agent`` is put before ours. Authorization, content type and
            idempotency key stay ours.
        on_event: called with each event of each call (see ``Event``) in the event loop, so it must not block. What it
            raises is logged, and does not touch the call.

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
        session: aiohttp.ClientSession | None = None,
        proxy: str | URL | None = None,
        trust_env: bool = False,
        ssl: SSLContext | None = None,
        allow_http: bool = False,
        headers: Mapping[str, str] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if isinstance(api_key, str):
            api_key = Secret(api_key)  # first of all, so that no dump of this frame shows it
        elif api_key is not None and not callable(api_key):
            raise ConfigurationError("api_key must be a string or a function that gives one")
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
        """Postgres: projects, branches, snapshots."""
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
        """Feature flags and roll-outs."""
        return Flags(self._dispatcher)

    @cached_property
    def account(self) -> Account:
        """The wallet, and a first key."""
        return Account(self._dispatcher)

    @cached_property
    def discovery(self) -> Discovery:
        """What the service offers; needs no key."""
        return Discovery(self._dispatcher)

    @property
    def stats(self) -> Stats:
        """What the pool did so far, over all views of this client."""
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
            capability: for example ``"db.project.get"``.
            arguments: by their documented names.
            idempotency_key: for a call that changes something; a fresh one by default.

        Returns:
            What the method of the same name returns; for a list, one page.

        Raises:
            InvalidArgument: no such capability, or its arguments are wrong.
            InfraiError: whatever else the call may raise.
        """
        known = CAPABILITIES.get(capability)
        if known is None:
            close = difflib.get_close_matches(capability, CAPABILITIES, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "see infrai_async.CAPABILITIES"
            raise InvalidArgument(f"{capability!r} is no capability that this version knows: {advice}")
        given = dict(arguments or {})
        idempotency_key = _one_key(known.mutates, given, idempotency_key)
        given = check_names(known, given)
        if known.paged:
            return await self._dispatcher.page(known, given)
        return await self._dispatcher.call(known, given, idempotency_key)

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
        dispatcher = self._dispatcher
        now = dispatcher.options
        view = object.__new__(type(self))
        view._is_view = True
        view._dispatcher = Dispatcher(
            dispatcher.pool,
            Options(
                now.timeout if isinstance(timeout, Unset) else _time_limit(timeout),
                now.retry if isinstance(retry, Unset) else _policy(retry),
                now.headers if isinstance(headers, Unset) else _header_set(headers),
            ),
        )
        return view

    async def aclose(self, grace: float | timedelta = 5.0) -> None:
        """Close the client and every view of it; calling it again does nothing more.

        New calls are refused at once, and so are those that wait for a place; those in flight get ``grace`` seconds,
        then end with a ``TransportError``.

        Args:
            grace: seconds; zero ends them at once.
        """
        await self._dispatcher.pool.close(grace_seconds(grace))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_view:
            await self.aclose()


def _one_key(mutates: bool, arguments: dict[str, object], given: str | None) -> str | None:
    """Return the idempotency key of a generic call: documented as a parameter, it may stand among the arguments."""
    among = arguments.pop("idempotency_key", None)
    key = given if given is not None else among
    if key is not None and not mutates:
        raise InvalidArgument("idempotency_key goes with calls that change something; this one only reads")
    if given is not None and among not in (None, given):
        raise InvalidArgument("idempotency_key is given twice, and differently")
    return key  # type: ignore[return-value] # checked with the request, like every argument


def _check_transport(session: object, proxy: object, ssl: object, *, trust_env: bool) -> None:
    if session is not None and not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session must be an aiohttp.ClientSession")
    if session is not None and (proxy is not None or ssl is not None or trust_env):
        raise ConfigurationError("proxy, ssl and trust_env are settings of the session that you lend")
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
    """Return the grace of closing in seconds.

    Raises:
        InvalidArgument: it is no length of time.
    """
    return 0.0 if grace in (0, timedelta(0)) else seconds("grace", grace)


def _policy(retry: object) -> RetryPolicy:
    if not isinstance(retry, RetryPolicy):
        raise InvalidArgument("retry must be a RetryPolicy; RetryPolicy.none() never sends a call twice")
    return retry


def _listener(on_event: OnEvent | None) -> Listener | None:
    if on_event is None:
        return None
    if not callable(on_event) or any(map(inspect.iscoroutinefunction, (on_event, type(on_event).__call__))):
        raise InvalidArgument("on_event must be a plain function of one event, not an asynchronous one")
    from infrai_async._observability.reporter import (
        Listener,  # only where somebody listens, for its classes take time to build
    )

    return Listener(on_event)


def _header_set(headers: Mapping[str, str] | None) -> HeaderSet:
    if headers is not None and not isinstance(headers, Mapping):
        raise InvalidArgument("headers must map names to values")
    given = dict(headers or {})
    for name, value in given.items():
        if not isinstance(name, str) or not _HEADER_NAME(name) or name.lower() in _FRAMING:
            raise InvalidArgument(
                f"headers cannot have {name!r}: it is no header's name, or one that frames the message"
            )
        if not isinstance(value, str) or not value.isprintable():
            raise InvalidArgument(f"headers must map {name} to a string without line breaks")
    agents = [given.pop(name) for name in tuple(given) if name.lower() == "user-agent"]
    given["User-Agent"] = " ".join([*agents, _USER_AGENT])
    return HeaderSet(given)
