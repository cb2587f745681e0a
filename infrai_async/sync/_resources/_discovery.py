"""``client.discovery`` of the blocking client.

Written by ``python -m tools.blocking`` from ``infrai_async/resources/_discovery.py``: change that instead.
"""

from __future__ import annotations

from functools import partial

from infrai_async.models import CapabilityInfo, DiscoveryIndex
from infrai_async.resources import _discovery
from infrai_async.sync._facade import Facade


class Discovery(Facade[_discovery.Discovery]):
    """The capabilities that the service offers. These calls need no API key."""

    def list(self) -> DiscoveryIndex:
        """Fetch the index of all capabilities (``discovery.list``): one document, not a cursor.

        Returns:
            A ``DiscoveryIndex`` with ``version``, ``generated_at`` and a ``CapabilityInfo`` for each capability.

        Raises:
            InfraiError: the call failed.
        """
        __tracebackhide__ = True
        return self._runner.run(self._async.list)

    def get(self, capability: str) -> CapabilityInfo:
        """Fetch the description of one capability (``discovery.get``).

        Args:
            capability: capability id, for example ``"db.project.create"``.

        Returns:
            A ``CapabilityInfo`` with method, path, regions, vendors and billing; details such as schemas are in
            ``extra``.

        Raises:
            InvalidArgument: ``capability`` is not a string or is empty; nothing was sent.
            NotFoundError: the service has no such capability.
            InfraiError: the call failed for another reason.
        """
        __tracebackhide__ = True
        return self._runner.run(partial(self._async.get, capability))
