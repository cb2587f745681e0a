"""What a service is: for each capability one function over the state, and for some an effect outside of it."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import attrs
from sqlalchemy import Connection, Table

from infrai_async.local._errors import RequestRefused, invalid, not_found
from infrai_async.local.http.call_log import RecentCalls
from infrai_async.local.http.envelope import NANO
from infrai_async.local.http.router import Row
from infrai_async.local.objects.blobs import Blobs
from infrai_async.local.objects.s3 import S3
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.state.keyring import Keyring
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import find

Data: TypeAlias = dict[str, Any]


@attrs.define
class Address:
    """Where the gateway is reached; ``base_url`` is empty until it listens."""

    base_url: str = ""


@attrs.define
class PostgresStatus:
    """Whether calls can have Postgres: the supervisor keeps it true.

    Attributes:
        server: there before any ``db`` call runs, and away while one that died is started again.
        settled: there is nothing to wait for: it is there, or it cannot be had.
        missing: why none can be had, if so.
    """

    server: Postgres | None = None
    settled: asyncio.Event = attrs.field(factory=asyncio.Event)
    missing: str | None = None


@attrs.frozen(kw_only=True, eq=False)
class ServiceContext:
    """What the services of one gateway work with.

    Attributes:
        store: runs jobs against the state.
        keyring: derives every secret.
        credit: what a new account starts with, in nano-dollars.
        blobs: the bytes of the objects that are kept here.
        s3: the store that keeps them instead, if there is one.
        address: where the gateway is reached.
        postgres_status: whether its Postgres is there.
        wake: says that there is something to clear up.
        edge_changed: says that a distribution is no longer what the edge knows of it.
        count_traffic: writes down what the edge counted so far.
        id: tells this gateway, for as long as it runs, from others over the same state.
        recent: the last calls.
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

    @property
    def base_url(self) -> str:
        """The gateway's address."""
        return self.address.base_url

    @property
    def postgres(self) -> Postgres | None:
        """The Postgres server, if it is there just now."""
        return self.postgres_status.server

    @property
    def postgres_missing(self) -> str | None:
        """Why no Postgres can be had, if so."""
        return self.postgres_status.missing

    def checkout_url(self, id: str) -> str:
        """Return the address of the page on which something is paid."""
        return f"{self.base_url}/checkout/{id}"

    def check_postgres(self) -> Postgres:
        """Return the Postgres server.

        Raises:
            RequestRefused: 503, there is none; trying again helps where it is only being started again.
        """
        if self.postgres is None:
            missing, hint = "the local gateway has no Postgres to work with", self.postgres_missing
            raise RequestRefused(503, "VENDOR_UNAVAILABLE", missing, hint=hint, retryable=hint is None)
        return self.postgres


@attrs.frozen(kw_only=True)
class ServiceCall:
    """One authenticated, well-formed call.

    Attributes:
        account: the empty string for those that need no key.
        unknown: what the body says beyond the row's parameters; it only tells one request from another.
    """

    capability: Row
    account: str
    params: Mapping[str, Any]
    unknown: Mapping[str, Any]
    key: str | None
    context: ServiceContext
    now: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    def given(self, *names: str) -> Data:
        """Return those of the named parameters that the caller gave."""
        return {name: self.params[name] for name in names if name in self.params}


def _same(_: ServiceContext, data: Data) -> Data:
    return data


@attrs.frozen(kw_only=True)
class Effect:
    """What a call does outside of the state, between its two transactions.

    Attributes:
        perform: does it; called again after a crash with the same data, so what is done already counts as done.
        finish: makes the result visible and says whether it is still wanted.
        undo: takes back what the first transaction wrote.
        needed: says whether this gateway has anything to do there.
    """

    perform: Callable[[ServiceContext, Data], Awaitable[None]]
    finish: Callable[[Connection, Data], bool]
    undo: Callable[[Connection, Data], None]
    needed: Callable[[ServiceContext], bool] = lambda context: True


@attrs.frozen(kw_only=True)
class Service:
    """How a capability is answered.

    Attributes:
        run: does the work in one transaction and returns what is remembered under the idempotency key.
        effect: what comes after it, if anything.
        present: makes of what ``run`` returned what the caller sees; secrets and addresses come in only here.
        before: what has to be done before ``run``, if anything.
    """

    run: Callable[[ServiceCall, Connection], Data]
    effect: Effect | None = None
    present: Callable[[ServiceContext, Data], Data] = _same
    before: Callable[[ServiceContext], Awaitable[None]] | None = None

    def has_effect(self, context: ServiceContext) -> bool:
        """Say whether a call is not done with its transaction."""
        return self.effect is not None and self.effect.needed(context)


SERVICES: Final[dict[str, Service]] = {}
"""Every service, by capability id; the modules of the services fill it when they are imported."""

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
    """Return a fresh identifier."""
    return f"{prefix}_{uuid.uuid4().hex}"


def iso(moment: datetime) -> str:
    """Return a time as the API writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_name(field: str, value: str) -> str:
    """Return a name that the state keeps exactly (D22).

    Raises:
        RequestRefused: it is empty, too long or holds NUL.
    """
    if not re.fullmatch(r"[^\0]{1,255}", value, re.DOTALL):
        raise invalid(f"{field} has to have 1 to 255 characters, none of them NUL", **{field: "1 to 255 characters"})
    return value


def existing(call: ServiceCall, connection: Connection, table: Table, thing: str, **where: str) -> Data:
    """Return the one resource of the caller's account that is named by a column's value.

    Raises:
        RequestRefused: 404, there is none.
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
    """Return what a call costs, in nano-dollars (D24)."""
    if capability.id.startswith(("discovery.", "account.")) or capability.method == "DELETE":
        return 0
    return _PRICES.get(capability.id, NANO // 100_000 if capability.method == "GET" else NANO // 10_000)
