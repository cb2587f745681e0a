"""Servers that do not wait for the disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infrai_async.local.postgres.server import PostgresServer


@pytest.fixture(scope="session", autouse=True)
def postgres_does_not_wait_for_the_disk() -> Iterator[None]:
    """Servers that a test starts in its own process lose nothing by it: only a machine that goes down would tell.

    Gateways in processes of their own, which are killed, run as users run them.
    """
    settings = PostgresServer._settings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresServer, "_settings", lambda server: [*settings(server), "-c", "fsync=off"])
        yield
