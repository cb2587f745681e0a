"""The models of the API's responses: frozen, slotted classes, one for each documented type (contract 2.8).

A field without a default is part of every documented response of its type, though it may be null. A field that defaults
to ``None`` may be missing. Fields that the documentation does not name are kept in ``extra``, and enum values stay
strings, so that responses of newer service versions can still be read.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#28-named-return-types-fields-known--proposed
"""

from __future__ import annotations

from infrai_async.models.account import Activation, Balance, TopupRecord
from infrai_async.models.base import JSON, NO_METADATA, Ack, Metadata, Model, Page, read_from, to_plain
from infrai_async.models.cdn import CacheStats, Distribution, PurgeResult
from infrai_async.models.db import Branch, Project, ProjectInventory, Snapshot
from infrai_async.models.discovery import CapabilityInfo, DiscoveryIndex
from infrai_async.models.flags import Flag, FlagRule, FlagState, FlagValue, FlagValues, RolloutConfig, Variant
from infrai_async.models.secrets import mask_uri
from infrai_async.models.storage import Bucket, PresignedUrl

__all__ = [
    "JSON",
    "NO_METADATA",
    "Ack",
    "Activation",
    "Balance",
    "Branch",
    "Bucket",
    "CacheStats",
    "CapabilityInfo",
    "DiscoveryIndex",
    "Distribution",
    "Flag",
    "FlagRule",
    "FlagState",
    "FlagValue",
    "FlagValues",
    "Metadata",
    "Model",
    "Page",
    "PresignedUrl",
    "Project",
    "ProjectInventory",
    "PurgeResult",
    "RolloutConfig",
    "Snapshot",
    "TopupRecord",
    "Variant",
    "mask_uri",
    "read_from",
    "to_plain",
]
