"""The blocking client, a thin layer over the asynchronous client.

    _client, _resources -> _many -> _facade -> _runner

No logic is duplicated: each blocking method is derived from its asynchronous counterpart (``_facade``), and a call runs
that counterpart in an event loop of the client's own (``_runner``).
"""

from __future__ import annotations

from infrai_async.sync._client import Infrai as Infrai
from infrai_async.sync._facade import Cursor as Cursor
from infrai_async.sync._many import FanOut as FanOut
from infrai_async.sync._many import Inventory as Inventory

__all__ = ["Cursor", "FanOut", "Infrai", "Inventory"]
