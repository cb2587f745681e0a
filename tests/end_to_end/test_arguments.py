"""Arguments that a service may be unable to carry: against the gateway they take effect, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from infrai_async import AsyncInfrai, InvalidArgument
from infrai_async.local import LocalGateway
from infrai_async.models import JSON

pytestmark = pytest.mark.anyio


@pytest.fixture
def without_postgres(tmp_path: Path) -> dict[str, Any]:
    """Arguments for a gateway of the test's own that starts at once, since it finds no Postgres."""
    return {"data_dir": tmp_path / "data", "postgres_bin": tmp_path / "no-postgres-here"}


@pytest.mark.parametrize("served", [None, "current", "seed"])
@pytest.mark.parametrize("remembered", ["nothing", "a move"])
async def test_what_is_asked_of_a_presigned_url_is_in_force_or_refused(
    without_postgres: Any, served: Literal["current", "seed"] | None, remembered: str
) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
        aiohttp.ClientSession() as http,
    ):
        if remembered == "a move":
            gateway.serve_generation("current")
        await client.storage.bucket.create(bucket="uploads")
        gateway.serve_generation(served)
        presign, limits = client.storage.object.presign, {"content_type": "text/plain", "max_bytes": 3}
        if served == "seed":
            for name, value in limits.items():
                with pytest.raises(InvalidArgument, match=name) as caught:
                    await client.call("storage.object.presign", {"bucket": "uploads", "key": "k", name: value})
                assert (caught.value.outcome, len(caught.value.attempts)) == ("rejected", 1)
            assert (await presign("uploads", "k")).url  # and what the service can do, it still does
            return
        upload = await presign("uploads", "k", content_type="text/plain", max_bytes=3)
        assert upload.headers == {"Content-Type": "text/plain"}
        for data, kind, status in (
            (b"abcd", "text/plain", 413),
            (b"abc", "text/html", 403),
            (b"abc", "text/plain", 200),
        ):
            async with http.put(upload.url, data=data, headers={"Content-Type": kind}) as answer:
                assert answer.status == status
        nothing = await presign("uploads", "empty", max_bytes=0)
        for data, status in ((b"a", 413), (b"", 200)):
            async with http.put(nothing.url, data=data) as answer:
                assert answer.status == status
        download = await presign("uploads", "k", method="GET", response_disposition="attachment")
        async with http.get(download.url) as answer:
            assert answer.headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize("size", [1_000, 10_000, 50_000])
async def test_a_long_context_is_evaluated(without_postgres: Any, size: int) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
    ):
        rules = [{"attribute": "plan", "operator": "eq", "value": "pro", "serve": True}]
        await client.flags.set("beta", type="bool", default_value=False, rules=rules)
        context: dict[str, JSON] = {"note": "x" * size, "plan": "pro"}
        assert (await client.flags.get_value("beta", context=context)).value is True
        assert await client.flags.is_enabled("beta", context=context)
        assert (await client.flags.get_all(context=context))["beta"] is True


async def test_a_context_that_no_url_holds_is_refused_by_name_whatever_the_default(without_postgres: Any) -> None:
    async with (
        LocalGateway(**without_postgres) as gateway,
        AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client,
    ):
        with pytest.raises(InvalidArgument, match="shorten context"):
            await client.flags.get_value("beta", context={"note": "x" * 70_000}, default=False)
