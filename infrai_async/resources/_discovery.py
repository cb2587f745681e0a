"""``client.discovery``: the service's own description of its capabilities.

Contract: https://github.com/infrai/infrai-async/blob/main/docs/CONTRACT.md#111-discovery-shapes
"""

from __future__ import annotations

from infrai_async._dispatch import Resource
from infrai_async.capabilities import DISCOVERY_GET, DISCOVERY_LIST
from infrai_async.models import CapabilityInfo, DiscoveryIndex


class Discovery(Resource):
    """The capabilities that the service offers. These calls need no API key."""

    async def list(self) -> DiscoveryIndex:
        """Fetch the index of all capabilities (``discovery.list``): one document, not a cursor.

        Returns:
            A ``DiscoveryIndex`` with ``version``, ``generated_at`` and a ``CapabilityInfo`` for each capability.

        Raises:
            InfraiError: the call failed.
        """
        return await self._dispatcher.call(DISCOVERY_LIST, {})

    async def get(self, capability: str) -> CapabilityInfo:
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
        return await self._dispatcher.call(DISCOVERY_GET, {"capability": capability})
