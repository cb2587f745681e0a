"""``client.discovery``: what the service offers, without a key (CONTRACT.md 1.11)."""

from __future__ import annotations

from infrai_async._dispatch import Resource
from infrai_async.capabilities import DISCOVERY_GET, DISCOVERY_LIST
from infrai_async.models import CapabilityInfo, DiscoveryIndex


class Discovery(Resource):
    """The service's own list of its capabilities."""

    async def list(self) -> DiscoveryIndex:
        """Fetch the index (``discovery.list``): one document, not a cursor.

        Raises:
            InfraiError: whatever the call may raise.
        """
        return await self._dispatcher.call(DISCOVERY_LIST, {})

    async def get(self, capability: str) -> CapabilityInfo:
        """Describe one capability (``discovery.get``).

        Args:
            capability: its id, for example ``"db.project.create"``.

        Raises:
            NotFoundError: there is none of that id.
            InfraiError: whatever else the call may raise.
        """
        return await self._dispatcher.call(DISCOVERY_GET, {"capability": capability})
