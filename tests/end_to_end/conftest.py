"""A gateway of each file's own, with a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.quick_postgres import postgres_does_not_wait_for_the_disk  # noqa: F401 - a fixture

from infrai_async.local import LocalGateway


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[LocalGateway]:
    async with LocalGateway() as running:
        yield running
