"""The blocking facade: the asynchronous client, for threads that wait.

    _client, _resources -> _many -> _facade -> _runner

Nothing is done twice here: a method is declared by the asynchronous one that it stands for (``_facade``), and a call of
it runs that one in the client's own event loop (``_runner``).
"""

from __future__ import annotations

from infrai_async.sync._client import Infrai as Infrai
from infrai_async.sync._facade import Cursor as Cursor
from infrai_async.sync._many import FanOut as FanOut
from infrai_async.sync._many import Inventory as Inventory

__all__ = ["Cursor", "FanOut", "Infrai", "Inventory"]
