"""The parts that services are made of: the context, a call, and the registration of functions as services.

A service is one function over the state for each capability, and for some capabilities an effect outside the state.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import attrs
from sqlalchemy import Connection, Table

from infrai_async.local._errors import RequestRefused, invalid, not_found
from infrai_async.local.http.call_log import RecentCalls
from infrai_async.local.http.envelope import NANO
from infrai_async.local.http.host_guard import host_name, is_here
from infrai_async.local.http.router import Row
from infrai_async.local.objects.blobs import Blobs
from infrai_async.local.objects.s3 import S3
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.state.keyring import Keyring
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import find

Data: TypeAlias = dict[str, Any]
_LONGEST_WAIT: Final = 30.0
"""Seconds that a call waits for Postgres to start; clients give up after 60."""


@attrs.define
class Address:
    """Where the gateway can be reached.

    Attributes:
        base_url: its address on this machine; empty until it listens.
        public_url: the address that callers elsewhere use instead, if there is one.
    """

    base_url: str = ""
    public_url: str | None = None


@attrs.define
class PostgresStatus:
    """Whether Postgres is available to calls; maintained by the supervisor.

    Attributes:
        server: the server, or ``None`` while it starts, restarts or is unavailable.
        settled: set if there is nothing to wait for: the server is available, or it is known to be unavailable.
        missing: the reason if no server can be used, or ``None``.
        delayed: the reason why it does not run at the moment, while it is started again, if that lasts.
    """

    server: Postgres | None = None
    settled: asyncio.Event = attrs.field(factory=asyncio.Event)
    missing: str | None = None
    delayed: str | None = None

    async def settle(self) -> None:
        """Wait until it is known whether the server is available.

        Raises:
            RequestRefused: 503, if that takes longer than callers wait.
        """
        if self.settled.is_set():
            return
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await self.settled.wait()
        except TimeoutError:
            raise RequestRefused(
                503, "VENDOR_UNAVAILABLE", f"Postgres is still starting after {_LONGEST_WAIT:.0f} seconds; try again"
            ) from None


@attrs.frozen(kw_only=True, eq=False)
class ServiceContext:
    """What the services of a gateway share.

    Attributes:
        store: runs jobs against the state.
        keyring: derives every secret.
        credit: the trial credit of a new account, in nano-dollars.
        blobs: the bytes of the objects that the gateway keeps itself.
        s3: the S3-compatible store that keeps the objects instead, if there is one.
        address: the address of the gateway.
        postgres_status: whether Postgres is available.
        wake: wakes the janitor, after something was marked as deleted.
        edge_changed: invalidates what the edge knows about a distribution.
        count_traffic: writes the edge's traffic counters to the state.
        id: identifies this run of the gateway among all gateways that share the state.
        recent: the most recent calls.
        asked_as: the host, with its port, by which a caller elsewhere reached the gateway; see ``for_caller``.
    """

    store: Store
    keyring: Keyring
    credit: int
    blobs: Blobs
    s3: S3 | None
    address: Address
    postgres_status: PostgresStatus
    wake: Callable[[], None]
    edge_changed: Callable[[str], None]
    count_traffic: Callable[[], Awaitable[None]]
    id: str = attrs.field(factory=lambda: new_id("gw"))
    recent: RecentCalls = attrs.field(factory=RecentCalls)
    asked_as: str | None = None

    def for_caller(self, host: str) -> ServiceContext:
        """Return the context for a caller, to whom all addresses name what it can reach.

        Args:
            host: the host of the request, with its port; it has been checked.
        """
        name, port = host_name(host), re.search(r":[0-9]{1,5}\Z", host)
        if is_here(name):
            return self
        return attrs.evolve(self, asked_as=(f"[{name}]" if ":" in name else name) + (port[0] if port else ""))

    @property
    def base_url(self) -> str:
        """The gateway's address for the caller: the public one, or the host that it asked, or the one here."""
        if self.address.public_url is not None:
            return self.address.public_url
        return self.address.base_url if self.asked_as is None else f"http://{self.asked_as}"

    @property
    def host(self) -> str:
        """The host of ``base_url``, as URLs write it."""
        host = urlsplit(self.base_url).hostname or ""
        return f"[{host}]" if ":" in host else host

    @property
    def postgres(self) -> Postgres | None:
        """The Postgres server, or None while it is not available."""
        return self.postgres_status.server

    @property
    def postgres_missing(self) -> str | None:
        """The reason if no Postgres can be used, or None."""
        return self.postgres_status.missing

    def checkout_url(self, id: str) -> str:
        """Return the address of the checkout page of a top-up."""
        return f"{self.base_url}/checkout/{id}"

    def check_postgres(self) -> Postgres:
        """Return the Postgres server.

        Raises:
            RequestRefused: 503, if it is not available; retryable while it is being restarted.
        """
        if self.postgres is None:
            missing, message = self.postgres_missing, "the local gateway has no Postgres available"
            hint = missing or self.postgres_status.delayed
            raise RequestRefused(503, "VENDOR_UNAVAILABLE", message, hint=hint, retryable=missing is None)
        return self.postgres


@attrs.frozen(kw_only=True)
class ServiceCall:
    """An authenticated and validated call.

    Attributes:
        account: the calling account, or the empty string for public capabilities.
        unknown: the fields of the body that are not parameters; they matter only for telling requests apart.
        key: the idempotency key, if the caller gave one.
    """

    capability: Row
    account: str
    params: Mapping[str, Any]
    unknown: Mapping[str, Any]
    key: str | None
    context: ServiceContext
    now: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    def given(self, *names: str) -> Data:
        """Return the named parameters that the caller gave."""
        return {name: self.params[name] for name in names if name in self.params}


def _same(_: ServiceContext, data: Data) -> Data:
    return data


@attrs.frozen(kw_only=True)
class Effect:
    """What a call does outside the state, between its two transactions.

    Attributes:
        perform: performs the effect. It must be idempotent, since it runs again with the same data after a crash.
        finish: publishes the result, and returns False if it was deleted in the meantime.
        undo: removes what the first transaction wrote.
        needed: returns whether this gateway has to perform the effect at all.
    """

    perform: Callable[[ServiceContext, Data], Awaitable[None]]
    finish: Callable[[Connection, Data], bool]
    undo: Callable[[Connection, Data], None]
    needed: Callable[[ServiceContext], bool] = lambda context: True


@attrs.frozen(kw_only=True)
class Service:
    """The implementation of a capability.

    Attributes:
        run: does the work in one transaction, and returns the data to record under the idempotency key.
        effect: what to do outside the state after ``run``.
        present: turns the recorded data into the response. Secrets and addresses are added only here, so they are never
            stored.
        before: what to do before ``run``.
    """

    run: Callable[[ServiceCall, Connection], Data]
    effect: Effect | None = None
    present: Callable[[ServiceContext, Data], Data] = _same
    before: Callable[[ServiceContext], Awaitable[None]] | None = None

    def has_effect(self, context: ServiceContext) -> bool:
        """Return whether a call has an effect outside the state."""
        return self.effect is not None and self.effect.needed(context)


SERVICES: Final[dict[str, Service]] = {}
"""Every service by capability id, registered when the modules of the services are imported."""

Run: TypeAlias = Callable[[ServiceCall, Connection], Data]


def capability(
    id: str,
    *,
    effect: Effect | None = None,
    present: Callable[[ServiceContext, Data], Data] = _same,
    before: Callable[[ServiceContext], Awaitable[None]] | None = None,
) -> Callable[[Run], Run]:
    """Register a function as the service of a capability."""

    def register(run: Run) -> Run:
        SERVICES[id] = Service(run=run, effect=effect, present=present, before=before)
        return run

    return register


def new_id(prefix: str) -> str:
    """Return a new unique identifier."""
    return f"{prefix}_{uuid.uuid4().hex}"


def iso(moment: datetime) -> str:
    """Format a time the way the API does."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_name(field: str, value: str) -> str:
    """Return a name unchanged, if the state can store it exactly (D22).

    Raises:
        RequestRefused: 400, if it is empty, too long or contains NUL.
    """
    if not re.fullmatch(r"[^\0]{1,255}", value, re.DOTALL):
        raise invalid(f"{field} must have 1 to 255 characters, none of them NUL", **{field: "1 to 255 characters"})
    return value


def existing(call: ServiceCall, connection: Connection, table: Table, thing: str, **where: str) -> Data:
    """Return the resource of the caller's account with this value in a column.

    Raises:
        RequestRefused: 404, if there is none.
    """
    found = find(connection, table, call.account, **where)
    if found is None:
        raise not_found(thing, *where.values())
    return found


_PRICES: Final = {
    "db.project.create": NANO // 1000,
    "db.branch.create": NANO // 1000,
    "db.snapshot.create": NANO // 1000,
    "db.snapshot.restore": NANO // 1000,
    "cdn.distribution.create": NANO // 1000,
}


def price_of(capability: Row) -> int:
    """Return the price of a call in nano-dollars (D24)."""
    if capability.id.startswith(("discovery.", "account.")) or capability.method == "DELETE":
        return 0
    return _PRICES.get(capability.id, NANO // 100_000 if capability.method == "GET" else NANO // 10_000)
