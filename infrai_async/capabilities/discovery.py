"""Discovery capabilities, whose responses have no envelope (contract 1.11) and which need no key (contract D18)."""

from __future__ import annotations

from typing import Final

from infrai_async.capabilities.table import define, path
from infrai_async.models import CapabilityInfo, DiscoveryIndex

DISCOVERY_LIST: Final = define("discovery.list", "GET", "/discovery", returns=DiscoveryIndex, public=True, bare=True)
DISCOVERY_GET: Final = define(
    "discovery.get",
    "GET",
    "/discovery/{capability}",
    path("capability"),
    returns=CapabilityInfo,
    public=True,
    bare=True,
)
