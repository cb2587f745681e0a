"""What the API answers: frozen, slotted values, one class for each documented type (CONTRACT.md 2.8).

A field without a default is one that every documented answer of its type carries; it may still be nullable.
A field with a default of ``None`` may be missing. What the documentation does not name lands in ``extra``, and
values of an enumeration stay the strings they came as, so that an answer of tomorrow still reads.
"""

from __future__ import annotations

from infrai_async.models.account import Activation, Balance, TopupRecord
from infrai_async.models.base import JSON, NO_METADATA, Ack, Metadata, Model, Page, mask_uri, read_from, to_plain
from infrai_async.models.cdn import CacheStats, Distribution, PurgeResult
from infrai_async.models.db import Branch, Project, ProjectInventory, Snapshot
from infrai_async.models.discovery import CapabilityInfo, DiscoveryIndex
from infrai_async.models.flags import Flag, FlagRule, FlagState, FlagValue, FlagValues, RolloutConfig, Variant
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
