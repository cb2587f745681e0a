"""``client.discovery``: the service's description of its own API; it needs no API key (contract 1.11)."""

from __future__ import annotations

from infrai_async._dispatch import Resource
from infrai_async.capabilities import DISCOVERY_GET, DISCOVERY_LIST
from infrai_async.models import CapabilityInfo, DiscoveryIndex


class Discovery(Resource):
    """The service's own list of its capabilities (``client.discovery``)."""

    async def list(self) -> DiscoveryIndex:
        """Get the index of all capabilities (``discovery.list``), which is one document and not a cursor.

        Returns:
            The ``DiscoveryIndex``, with its ``version`` and the service's ``capabilities``.

        Raises:
            InfraiError: the call failed.
        """
        return await self._dispatcher.call(DISCOVERY_LIST, {})

    async def get(self, capability: str) -> CapabilityInfo:
        """Get the description of one capability (``discovery.get``).

        Args:
            capability: the capability's id, for example ``"db.project.create"``.

        Returns:
            The ``CapabilityInfo``, with the ``method``, ``path``, ``billing`` and availability of the capability.

        Raises:
            NotFoundError: no capability has this id.
            InfraiError: the call failed for another reason.
        """
        return await self._dispatcher.call(DISCOVERY_GET, {"capability": capability})
