"""The asyncio-first Python SDK for Infrai.

A call passes through the wings in one direction::

    capabilities -> _protocol.request -> _transport.pool -> _protocol.decode -> models

``capabilities``
    The one table of what the service offers. ``models`` holds what it returns, ``errors`` what can go wrong.
``_dispatch``
    The one way in: it turns a method's arguments into a ``_protocol.flow.Call`` and gives it to the pool.
``_protocol``
    One call without I/O: building its request, reading its response, deciding on a retry, keeping to a budget.
``_transport``
    The only I/O for a call: the pool admits it, sends it over the event loop's session, and follows the flow of retries
    when an attempt did not succeed plainly.
``_listing``
    Cursors, pages fetched ahead, many lists at once, the inventory.
``_observability``, ``_display``
    Events for a listener; tables for notebooks and progress bars.
``resources``, ``_client``, ``sync``
    Typed methods of one line each, the client that has them, and its blocking equivalent.
``_event_loop``, ``_misuse``
    What the asynchronous client needs to run, and advice for statements that fit the other client.
``ext``, ``cli``, ``local``
    Other packages' tools; the command line; the local gateway, which shares the table and the models and nothing else.

``tests/pure/test_layers.py`` says which wing may import which. Where a docstring or comment names a rule (``D4``,
``contract 1.3``), it is in the contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#d4.

Names load when they are first used: importing the package alone loads next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from infrai_async._version import __version__

if TYPE_CHECKING:
    from infrai_async._client import AsyncInfrai
    from infrai_async._listing.cursor import Cursor, Pages
    from infrai_async._listing.fan_out import FanOut, fan_out
    from infrai_async._listing.inventory import Inventory
    from infrai_async._observability.events import AttemptSent, CallFinished, CallStarted, Event, Retrying, Throttled
    from infrai_async._protocol.request import UNSET, Unset
    from infrai_async._protocol.retry import RetryPolicy
    from infrai_async._protocol.scopes import Budget, Deadline, Operation
    from infrai_async._transport.stats import Stats
    from infrai_async._webhooks import verify_webhook
    from infrai_async.capabilities import CAPABILITIES, Capability
    from infrai_async.errors import (
        APIError,
        Attempt,
        AuthenticationError,
        BadRequestError,
        BudgetExceeded,
        ClientClosedError,
        ConfigurationError,
        ConflictError,
        ConnectError,
        DecodeError,
        InfraiError,
        InsufficientCreditError,
        InvalidArgument,
        NotFoundError,
        PaginationError,
        PermissionDeniedError,
        RateLimitError,
        ServerError,
        TimeoutError,
        TransportError,
    )
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
        FlagRule,
        FlagState,
        FlagValue,
        FlagValues,
        Metadata,
        Model,
        Page,
        PresignedUrl,
        Project,
        ProjectInventory,
        PurgeResult,
        RolloutConfig,
        Snapshot,
        TopupRecord,
        Variant,
    )
    from infrai_async.sync import Infrai

_MODULE_OF = {
    "CAPABILITIES": "capabilities",
    "UNSET": "_protocol.request",
    "APIError": "errors",
    "Ack": "models",
    "Activation": "models",
    "AsyncInfrai": "_client",
    "Attempt": "errors",
    "AttemptSent": "_observability.events",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "Balance": "models",
    "Branch": "models",
    "Bucket": "models",
    "Budget": "_protocol.scopes",
    "BudgetExceeded": "errors",
    "CacheStats": "models",
    "CallFinished": "_observability.events",
    "CallStarted": "_observability.events",
    "Capability": "capabilities",
    "CapabilityInfo": "models",
    "ClientClosedError": "errors",
    "ConfigurationError": "errors",
    "ConflictError": "errors",
    "ConnectError": "errors",
    "Cursor": "_listing.cursor",
    "Deadline": "_protocol.scopes",
    "DecodeError": "errors",
    "DiscoveryIndex": "models",
    "Distribution": "models",
    "Event": "_observability.events",
    "FanOut": "_listing.fan_out",
    "Flag": "models",
    "FlagRule": "models",
    "FlagState": "models",
    "FlagValue": "models",
    "FlagValues": "models",
    "Infrai": "sync",
    "InfraiError": "errors",
    "InsufficientCreditError": "errors",
    "InvalidArgument": "errors",
    "Inventory": "_listing.inventory",
    "Metadata": "models",
    "Model": "models",
    "NotFoundError": "errors",
    "Operation": "_protocol.scopes",
    "Page": "models",
    "Pages": "_listing.cursor",
    "PaginationError": "errors",
    "PermissionDeniedError": "errors",
    "PresignedUrl": "models",
    "Project": "models",
    "ProjectInventory": "models",
    "PurgeResult": "models",
    "RateLimitError": "errors",
    "RetryPolicy": "_protocol.retry",
    "Retrying": "_observability.events",
    "RolloutConfig": "models",
    "ServerError": "errors",
    "Snapshot": "models",
    "Stats": "_transport.stats",
    "Throttled": "_observability.events",
    "TimeoutError": "errors",
    "TopupRecord": "models",
    "TransportError": "errors",
    "Unset": "_protocol.request",
    "Variant": "models",
    "fan_out": "_listing.fan_out",
    "verify_webhook": "_webhooks",
}
"""The module that defines each public name."""
_MODULES = frozenset({"capabilities", "errors", "models", "sync"})
"""The public modules, which are attributes before anybody imports them."""

__all__ = [
    "CAPABILITIES",
    "UNSET",
    "APIError",
    "Ack",
    "Activation",
    "AsyncInfrai",
    "Attempt",
    "AttemptSent",
    "AuthenticationError",
    "BadRequestError",
    "Balance",
    "Branch",
    "Bucket",
    "Budget",
    "BudgetExceeded",
    "CacheStats",
    "CallFinished",
    "CallStarted",
    "Capability",
    "CapabilityInfo",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Cursor",
    "Deadline",
    "DecodeError",
    "DiscoveryIndex",
    "Distribution",
    "Event",
    "FanOut",
    "Flag",
    "FlagRule",
    "FlagState",
    "FlagValue",
    "FlagValues",
    "Infrai",
    "InfraiError",
    "InsufficientCreditError",
    "InvalidArgument",
    "Inventory",
    "Metadata",
    "Model",
    "NotFoundError",
    "Operation",
    "Page",
    "Pages",
    "PaginationError",
    "PermissionDeniedError",
    "PresignedUrl",
    "Project",
    "ProjectInventory",
    "PurgeResult",
    "RateLimitError",
    "RetryPolicy",
    "Retrying",
    "RolloutConfig",
    "ServerError",
    "Snapshot",
    "Stats",
    "Throttled",
    "TimeoutError",
    "TopupRecord",
    "TransportError",
    "Unset",
    "Variant",
    "__version__",
    "fan_out",
    "verify_webhook",
]


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
