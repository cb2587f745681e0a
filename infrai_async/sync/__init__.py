"""The blocking client, a thin layer over the asynchronous client.

    _client, _resources -> _many -> _facade -> _runner

No logic is duplicated: each blocking method runs its asynchronous counterpart in an event loop of the client's own
(``_runner``). Its signature and docstring are copies of that counterpart's, because editors, notebooks and linters show
what the source says; ``python -m tools.blocking`` writes them (``_resources``).
"""

from __future__ import annotations

from infrai_async.sync._client import Infrai as Infrai
from infrai_async.sync._facade import Cursor as Cursor
from infrai_async.sync._many import FanOut as FanOut
from infrai_async.sync._many import Inventory as Inventory

__all__ = ["Cursor", "FanOut", "Infrai", "Inventory"]
