"""A bucket that is there when it is needed, whoever made it first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infrai_async import AsyncInfrai, ConflictError, Infrai, NotFoundError
from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


async def test_a_second_run_gets_what_the_first_one_made() -> None:
    async with LocalGateway() as gateway, AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
        first = await client.storage.ensure_bucket("photos", region="eu", acl="public")
        assert (first.bucket, first.region, first.acl) == ("photos", "eu", "public")
        for asked in ({}, {"region": "eu"}, {"acl": "public", "vendor": first.vendor}):
            options: Any = asked
            assert await client.storage.ensure_bucket("photos", **options) == first
        many = await asyncio.gather(*(client.storage.ensure_bucket("crowd") for _ in range(20)))
        assert len({bucket.created_at for bucket in many}) == 1
        with client.operation("deploy"):
            assert await client.storage.ensure_bucket("photos") == first


async def test_a_bucket_that_differs_is_a_conflict_that_says_how() -> None:
    async with LocalGateway() as gateway, AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
        await client.storage.ensure_bucket("photos", region="eu")
        said = "region is 'eu', not 'us' and acl is 'private', not 'public'"
        with pytest.raises(ConflictError, match=f"the bucket exists, but {said}") as caught:
            await client.storage.ensure_bucket("photos", region="us", acl="public")
        assert (caught.value.code, caught.value.status) == ("STORAGE_BUCKET_EXISTS", 409)


def test_the_blocking_client_has_it_too() -> None:
    with LocalGateway() as gateway, Infrai(gateway.api_key, base_url=gateway.base_url) as client:
        assert client.storage.ensure_bucket("photos") == client.storage.bucket.get("photos")
        assert client.storage.bucket.delete("photos")
        with pytest.raises(NotFoundError, match="STORAGE_BUCKET_NOT_FOUND"):
            client.storage.bucket.get("photos")
