"""The table of capabilities: the id, routes, parameters and result type of each.

The request builder, the resource methods, ``client.call``, the command line and the local gateway all use it. A
capability is pure data: it performs no I/O and knows no client. Where the documentation has two generations of a route
(contract D2), the capability holds both, the older one first.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from infrai_async.capabilities import account, cdn, db, discovery, flags, storage
from infrai_async.capabilities.account import ACCOUNT_ACTIVATE, ACCOUNT_BALANCE, ACCOUNT_TOPUP
from infrai_async.capabilities.cdn import (
    CACHE_PURGE,
    CACHE_STATS,
    DISTRIBUTION_CREATE,
    DISTRIBUTION_DELETE,
    DISTRIBUTION_GET,
    DISTRIBUTION_LIST,
    DISTRIBUTION_UPDATE,
)
from infrai_async.capabilities.db import (
    BRANCH_CREATE,
    BRANCH_DELETE,
    BRANCH_GET,
    BRANCH_LIST,
    PROJECT_CREATE,
    PROJECT_DELETE,
    PROJECT_GET,
    PROJECT_LIST,
    SNAPSHOT_CREATE,
    SNAPSHOT_GET,
    SNAPSHOT_LIST,
    SNAPSHOT_RESTORE,
)
from infrai_async.capabilities.discovery import DISCOVERY_GET, DISCOVERY_LIST
from infrai_async.capabilities.flags import (
    FLAG_DELETE,
    FLAG_GET,
    FLAG_GET_ALL,
    FLAG_GET_VALUE,
    FLAG_IS_ENABLED,
    FLAG_LIST,
    FLAG_ROLLOUT,
    FLAG_SET,
    FLAG_TOGGLE,
)
from infrai_async.capabilities.storage import (
    BUCKET_CREATE,
    BUCKET_DELETE,
    BUCKET_GET,
    BUCKET_LIST,
    OBJECT_DELETE,
    OBJECT_PRESIGN,
)
from infrai_async.capabilities.table import Capability, Kind, Method, Param, Route
from infrai_async.models import Model

__all__ = [
    "ACCOUNT_ACTIVATE",
    "ACCOUNT_BALANCE",
    "ACCOUNT_TOPUP",
    "BRANCH_CREATE",
    "BRANCH_DELETE",
    "BRANCH_GET",
    "BRANCH_LIST",
    "BUCKET_CREATE",
    "BUCKET_DELETE",
    "BUCKET_GET",
    "BUCKET_LIST",
    "CACHE_PURGE",
    "CACHE_STATS",
    "CAPABILITIES",
    "DISCOVERY_GET",
    "DISCOVERY_LIST",
    "DISTRIBUTION_CREATE",
    "DISTRIBUTION_DELETE",
    "DISTRIBUTION_GET",
    "DISTRIBUTION_LIST",
    "DISTRIBUTION_UPDATE",
    "FLAG_DELETE",
    "FLAG_GET",
    "FLAG_GET_ALL",
    "FLAG_GET_VALUE",
    "FLAG_IS_ENABLED",
    "FLAG_LIST",
    "FLAG_ROLLOUT",
    "FLAG_SET",
    "FLAG_TOGGLE",
    "OBJECT_DELETE",
    "OBJECT_PRESIGN",
    "PROJECT_CREATE",
    "PROJECT_DELETE",
    "PROJECT_GET",
    "PROJECT_LIST",
    "SNAPSHOT_CREATE",
    "SNAPSHOT_GET",
    "SNAPSHOT_LIST",
    "SNAPSHOT_RESTORE",
    "Capability",
    "Kind",
    "Method",
    "Param",
    "Route",
]

CAPABILITIES: Final[Mapping[str, Capability[Model]]] = {
    capability.id: capability
    for family in (db, storage, cdn, flags, account, discovery)
    for capability in vars(family).values()
    if isinstance(capability, Capability)
}
"""All capabilities, by their documented ids."""
