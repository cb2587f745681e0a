"""The blocking client, a facade over the asynchronous one.

    _client, _resources -> _many -> _facade -> _runner

No logic is duplicated: each blocking method is declared by its asynchronous equivalent (``_facade``), and calling it
runs that method in the client's own event loop (``_runner``).
"""

from __future__ import annotations

from infrai_async.sync._client import Infrai as Infrai
from infrai_async.sync._facade import Cursor as Cursor
from infrai_async.sync._many import FanOut as FanOut
from infrai_async.sync._many import Inventory as Inventory

__all__ = ["Cursor", "FanOut", "Infrai", "Inventory"]
