"""The one table of capabilities: what each is called, where its parameters go and what it answers.

The request builder, the resource methods, ``client.call``, the command line and the local gateway all read it. A row
is data: it does no I/O and knows no client. Where the documentation has two generations of a route (CONTRACT.md D2),
the row holds both, the seed's first.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import attrs

from infrai_async.models import (
    Ack,
    Activation,
    Balance,
    Branch,
    Bucket,
    CacheStats,
    CapabilityInfo,
    DiscoveryIndex,
    Distribution,
    Flag,
    FlagState,
    FlagValue,
    FlagValues,
    Model,
    PresignedUrl,
    Project,
    PurgeResult,
    Snapshot,
    TopupRecord,
)

R_co = TypeVar("R_co", covariant=True)
Method: TypeAlias = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Kind: TypeAlias = Literal["string", "number", "integer", "boolean", "json", "object", "strings", "objects"]

_KINDS: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "string": ((str,), "a string"),
    "number": ((int, float), "a number"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
    "object": ((dict,), "an object (a mapping with string keys)"),
    "strings": ((list,), "a list of strings"),
    "objects": ((list,), "a list of objects"),
}


@attrs.frozen(kw_only=True, eq=False)
class Param:
    """One parameter of a capability.

    Attributes:
        name: the public argument, which is also the wire's name unless ``wire`` says otherwise.
        kind: the JSON type that the wire carries.
        where: the part of the request that it travels in.
        choices: the documented values, as the public argument spells them.
        bounds: the documented range, both ends included.
        wire: the wire's name where it differs (``from`` is no Python argument; D20).
        also: further body fields that carry the same value (D5, D12).
        lower: whether the wire has the value in lower case (D20: ``op``).
        default: what is sent when it is not given (D20: the verb always is).
        needs: for a value, the other parameter that it requires (D23).
        free: whether any text will do.
        may_lack: whether ``None`` leaves it out.
    """

    name: str = attrs.field(kw_only=False)
    kind: Kind = attrs.field(default="string", kw_only=False)
    where: Literal["path", "query", "body"]
    required: bool = False
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    wire: str = attrs.field(default=attrs.Factory(lambda self: self.name, takes_self=True))
    also: tuple[str, ...] = ()
    lower: bool = False
    default: str | None = None
    needs: Mapping[str, str] = attrs.field(factory=dict)
    free: bool = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.kind == "string" and not self.choices, takes_self=True)
    )
    may_lack: bool = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: not self.required and self.default is None and self.kind != "json", takes_self=True
        ),
    )

    def mismatch(self, value: object) -> str | None:
        """Say what ``value`` (plain JSON) should have been, or ``None`` when it fits."""
        if self.kind == "json":
            return None
        types, wanted = _KINDS[self.kind]
        fits = isinstance(value, types) and (self.kind == "boolean" or not isinstance(value, bool))
        if fits and isinstance(value, list):
            fits = all(isinstance(item, str if self.kind == "strings" else dict) for item in value)
        if not fits:
            return wanted
        if self.choices and value not in self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        if self.bounds is not None and not self.bounds[0] <= value <= self.bounds[1]:  # type: ignore[operator]
            return f"between {self.bounds[0]:g} and {self.bounds[1]:g}"
        return None


def _is_plain(route: Route) -> bool:
    return all(
        param.where != "body" and not param.also and (param.free or (param.kind == "integer" and param.bounds is None))
        for param in route.params
    )


@attrs.frozen(eq=False)
class Route:
    """One way to reach a capability: a path template and the parameters that go with it.

    Attributes:
        plain: whether it carries nothing but free texts and whole numbers, in path and query, as most do that only
            read.
    """

    path: str
    params: tuple[Param, ...] = ()
    plain: bool = attrs.field(init=False, default=attrs.Factory(_is_plain, takes_self=True))


@attrs.frozen(kw_only=True, eq=False)
class Capability(Generic[R_co]):
    """A row of the table.

    Attributes:
        id: the documented id, for example ``db.project.create``.
        routes: how to reach it, in the order in which they are tried.
        returns: the model that its answer becomes; for a list, the model of one item.
        paged: whether the answer is a page of items.
        deduplicates: whether the documentation lets its body carry an ``idempotency_key``.
        public: whether it goes out without the API key (D18).
        bare: whether its answer comes without an envelope (CONTRACT.md 1.2).
        mutates: whether it changes something, and so carries an idempotency key (D4).
        resendable: whether it may be sent again after a failure that leaves open whether it was done (D19).
        params: every parameter of any generation, by its public name.
    """

    id: str = attrs.field(kw_only=False)
    method: Method = attrs.field(kw_only=False)
    routes: tuple[Route, ...]
    returns: type[R_co]
    paged: bool = False
    deduplicates: bool = False
    public: bool = False
    bare: bool = False
    mutates: bool = attrs.field(init=False, default=attrs.Factory(lambda self: self.method != "GET", takes_self=True))
    resendable: bool = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: self.method in ("GET", "DELETE") or self.deduplicates, takes_self=True),
    )
    params: Mapping[str, Param] = attrs.field(
        init=False, default=attrs.Factory(lambda self: _params_by_name(self.routes), takes_self=True)
    )


def _params_by_name(routes: tuple[Route, ...]) -> Mapping[str, Param]:
    return {param.name: param for route in reversed(routes) for param in route.params}


def _row(
    id: str,
    method: Method,
    path: str,
    *params: Param,
    returns: type[R_co],
    current: Route | None = None,
    paged: bool = False,
    deduplicates: bool = False,
    public: bool = False,
    bare: bool = False,
) -> Capability[R_co]:
    seed = Route("/v1" + path, params)
    return Capability(
        id,
        method,
        routes=(seed,) if current is None else (seed, current),
        returns=returns,
        paged=paged,
        deduplicates=deduplicates,
        public=public,
        bare=bare,
    )


_path: Final = partial(Param, where="path", required=True)
_query: Final = partial(Param, where="query")
_body: Final = partial(Param, where="body")

_PAGING: Final = (_query("cursor"), _query("limit", "integer"))
_WHO: Final = (_query("user_id"), _query("context", "object"))
_ACL: Final = ("private", "public")
_VERBS: Final = ("GET", "PUT")
_DISTRIBUTION: Final = (
    _body("domain"),
    _body("enabled", "boolean"),
    _body("cache_ttl_seconds", "number"),
    _body("allowed_methods", "strings"),
    _body("https_only", "boolean"),
    _body("tags", "strings"),
    _body("vendor"),
)

# --- db: seeds 000 and 001 ---------------------------------------------------------------------------------------

PROJECT_CREATE: Final = _row(
    "db.project.create",
    "POST",
    "/db/project/create",
    _body("name", required=True),
    _body("vendor"),
    _body("region"),
    _body("plan"),
    _body("mode", choices=("managed", "byok"), needs={"byok": "vendor"}),
    _body("postgres_version"),
    returns=Project,
    deduplicates=True,
)
PROJECT_GET: Final = _row("db.project.get", "GET", "/db/project/get/{id}", _path("id"), returns=Project)
PROJECT_LIST: Final = _row("db.project.list", "GET", "/db/project/list", *_PAGING, returns=Project, paged=True)
PROJECT_DELETE: Final = _row("db.project.delete", "DELETE", "/db/project/delete/{id}", _path("id"), returns=Ack)

BRANCH_CREATE: Final = _row(
    "db.branch.create",
    "POST",
    "/db/branch/create",
    _body("project_id", required=True),
    _body("branch_name", required=True),
    _body("from_branch"),
    returns=Branch,
    deduplicates=True,
)
BRANCH_GET: Final = _row("db.branch.get", "GET", "/db/branch/get/{id}", _path("id"), returns=Branch)
BRANCH_LIST: Final = _row(
    "db.branch.list", "GET", "/db/branch/list", _query("project_id"), *_PAGING, returns=Branch, paged=True
)
BRANCH_DELETE: Final = _row("db.branch.delete", "DELETE", "/db/branch/delete/{id}", _path("id"), returns=Ack)

SNAPSHOT_CREATE: Final = _row(
    "db.snapshot.create",
    "POST",
    "/db/snapshot/create",
    _body("project_id", required=True),
    _body("label"),
    returns=Snapshot,
    deduplicates=True,
)
SNAPSHOT_GET: Final = _row("db.snapshot.get", "GET", "/db/snapshot/get/{id}", _path("id"), returns=Snapshot)
SNAPSHOT_LIST: Final = _row(
    "db.snapshot.list", "GET", "/db/snapshot/list", _query("project_id"), *_PAGING, returns=Snapshot, paged=True
)
SNAPSHOT_RESTORE: Final = _row(
    "db.snapshot.restore",
    "POST",
    "/db/snapshot/restore/{id}",
    _path("id", also=("snapshot_id",)),
    _body("new_name"),
    returns=Project,
    deduplicates=True,
)

# --- storage: seed 002 first, then the running service's routes (D2, D20) ------------------------------------------

BUCKET_CREATE: Final = _row(
    "storage.bucket.create",
    "POST",
    "/storage/buckets",
    _body("bucket", required=True),
    _body("vendor"),
    _body("region"),
    _body("acl", choices=_ACL),
    returns=Bucket,
    deduplicates=True,
    current=Route(
        "/v1/storage/bucket/create",
        (_body("bucket", required=True, wire="name"), _body("vendor"), _body("region"), _body("acl", choices=_ACL)),
    ),
)
BUCKET_LIST: Final = _row(
    "storage.bucket.list",
    "GET",
    "/storage/buckets",
    returns=Bucket,
    paged=True,
    current=Route("/v1/storage/bucket/list"),
)
OBJECT_PRESIGN: Final = _row(
    "storage.object.presign",
    "POST",
    "/storage/buckets/{bucket}/objects/{key}/presign",
    _path("bucket"),
    _path("key"),
    _body("method", choices=_VERBS, default="PUT"),
    _body("expires_seconds", "number"),
    returns=PresignedUrl,
    deduplicates=True,
    current=Route(
        "/v1/storage/object/presign/{bucket}/{key}",
        (
            _path("bucket"),
            _path("key"),
            _body("method", choices=_VERBS, wire="op", lower=True, default="PUT"),
            _body("expires_seconds", "number"),
            _body("content_type"),
            _body("max_bytes", "integer"),
            _body("response_disposition"),
        ),
    ),
)
OBJECT_DELETE: Final = _row(
    "storage.object.delete",
    "DELETE",
    "/storage/buckets/{bucket}/objects/{key}",
    _path("bucket"),
    _path("key"),
    returns=Ack,
    current=Route("/v1/storage/object/delete/{bucket}/{key}", (_path("bucket"), _path("key"))),
)

# --- cdn: seed 003 -----------------------------------------------------------------------------------------------

DISTRIBUTION_CREATE: Final = _row(
    "cdn.distribution.create",
    "POST",
    "/cdn/distribution/create",
    _body("origin", required=True),
    *_DISTRIBUTION,
    returns=Distribution,
)
DISTRIBUTION_GET: Final = _row(
    "cdn.distribution.get",
    "GET",
    "/cdn/distribution/get/{distribution_id}",
    _path("distribution_id"),
    returns=Distribution,
)
DISTRIBUTION_LIST: Final = _row(
    "cdn.distribution.list", "GET", "/cdn/distribution/list", *_PAGING, returns=Distribution, paged=True
)
DISTRIBUTION_UPDATE: Final = _row(
    "cdn.distribution.update",
    "PATCH",
    "/cdn/distribution/update/{distribution_id}",
    _path("distribution_id"),
    _body("origin"),
    *_DISTRIBUTION,
    returns=Distribution,
)
DISTRIBUTION_DELETE: Final = _row(
    "cdn.distribution.delete",
    "DELETE",
    "/cdn/distribution/delete/{distribution_id}",
    _path("distribution_id"),
    returns=Ack,
)
CACHE_PURGE: Final = _row(
    "cdn.cache.purge",
    "POST",
    "/cdn/cache/purge",
    _body("distribution_id", required=True),
    _body("paths", "strings"),
    _body("tags", "strings"),
    _body("purge_everything", "boolean"),
    _body("vendor"),
    returns=PurgeResult,
    deduplicates=True,
)
CACHE_STATS: Final = _row(
    "cdn.cache.stats",
    "GET",
    "/cdn/cache/stats",
    _query("distribution_id"),
    _query("from_", wire="from"),
    _query("to"),
    returns=CacheStats,
)

# --- flags: seed 004 ---------------------------------------------------------------------------------------------

FLAG_IS_ENABLED: Final = _row(
    "flags.is_enabled", "GET", "/flags/is_enabled/{key}", _path("key"), *_WHO, returns=FlagState
)
FLAG_SET: Final = _row(
    "flags.set",
    "POST",
    "/flags/set",
    _body("key", required=True),
    _body("description"),
    _body("type", choices=("bool", "string", "number", "json")),
    _body("default_value", "json"),
    _body("rules", "objects"),
    _body("rollout", "object"),
    _body("tags", "object"),
    _body("enabled", "boolean"),
    _body("archived", "boolean"),
    _body("version", "integer"),
    returns=Flag,
)
FLAG_LIST: Final = _row(
    "flags.list", "GET", "/flags/list", *_PAGING, _query("include_archived", "boolean"), returns=Flag, paged=True
)
FLAG_GET: Final = _row("flags.get", "GET", "/flags/get/{key}", _path("key"), returns=Flag)
FLAG_GET_VALUE: Final = _row(
    "flags.get_value",
    "GET",
    "/flags/get_value/{key}",
    _path("key"),
    *_WHO,
    _query("default", "json"),
    returns=FlagValue,
)
FLAG_GET_ALL: Final = _row("flags.get_all", "GET", "/flags/get_all", *_WHO, returns=FlagValues)
FLAG_TOGGLE: Final = _row(
    "flags.toggle",
    "POST",
    "/flags/toggle/{key}",
    _path("key", also=("key",)),
    _body("enabled", "boolean", required=True),
    _body("version", "integer", required=True),
    returns=Flag,
)
FLAG_ROLLOUT: Final = _row(
    "flags.rollout",
    "POST",
    "/flags/rollout/{key}",
    _path("key", also=("key",)),
    _body("percentage", "number", required=True, bounds=(0, 100)),
    _body("salt", required=True),
    _body("sticky_unit", required=True, choices=("user_id", "session_id", "device_id")),
    _body("version", "integer", required=True),
    _body("variants", "objects"),
    returns=Flag,
)
FLAG_DELETE: Final = _row("flags.delete", "DELETE", "/flags/delete/{key}", _path("key"), returns=Ack)

# --- account and discovery: the seeds' comments, CONTRACT.md 1.10, 1.11, D12, D15 ------------------------------------

ACCOUNT_ACTIVATE: Final = _row(
    "account.activate",
    "POST",
    "/activate",
    _body("region", choices=("auto", "western", "china")),
    _body("device_kind"),
    returns=Activation,
    public=True,
)
ACCOUNT_BALANCE: Final = _row("account.balance", "GET", "/account/balance", returns=Balance)
ACCOUNT_TOPUP: Final = _row(
    "account.topup",
    "POST",
    "/account/topup",
    _body("amount_usd", "number", required=True, also=("amount",)),
    _body("currency"),
    _body("payment_method"),
    _body("return_url"),
    returns=TopupRecord,
    deduplicates=True,
)
DISCOVERY_LIST: Final = _row("discovery.list", "GET", "/discovery", returns=DiscoveryIndex, public=True, bare=True)
DISCOVERY_GET: Final = _row(
    "discovery.get",
    "GET",
    "/discovery/{capability}",
    _path("capability"),
    returns=CapabilityInfo,
    public=True,
    bare=True,
)

CAPABILITIES: Final[Mapping[str, Capability[Model]]] = {
    row.id: row for row in tuple(globals().values()) if isinstance(row, Capability)
}
"""Every row, by its documented id."""
