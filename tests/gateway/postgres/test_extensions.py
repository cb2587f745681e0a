"""Extensions that owners create: what hosted services allow, what the build lacks, and what is for nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from infrai_async.local.postgres import extensions
from infrai_async.local.postgres.binaries import Binaries, find
from infrai_async.local.postgres.databases import Postgres

from .conftest import PASSWORD, client, made, name, superuser, temporary

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[Postgres]:
    async with temporary() as postgres:
        yield postgres


async def test_an_owner_creates_vector_and_finds_the_nearest_in_every_copy(own: Postgres) -> None:
    source, snapshot, restored = await made(own, "create extension vector"), name(), name()
    async with client(own, source) as connection:
        await connection.execute("create table items (id int, embedding vector(3))")
        await connection.execute("insert into items values (1, '[1,2,3]'), (2, '[4,5,6]')")
        await connection.execute("create index on items using hnsw (embedding vector_l2_ops)")
        await connection.execute(f"alter database {source} set hnsw.ef_search = 77")
    await own.freeze(source, snapshot)
    await own.copy(snapshot, restored, PASSWORD)
    async with client(own, restored) as connection:
        nearest = "select id from items order by embedding <-> '[4,5,7]' limit 1"
        assert await connection.fetchval(nearest) == 2
        assert await connection.fetchval("show hnsw.ef_search") == "77"
        await connection.execute("drop extension vector cascade")
        await connection.execute("create extension vector")


@pytest.mark.parametrize("extension", sorted(set(extensions._ALLOWED) - {"hypopg", "pg_uuidv7"}))
async def test_an_owner_creates_what_hosted_services_allow(own: Postgres, extension: str) -> None:
    database = await made(own)
    async with client(own, database) as connection:
        await connection.execute(f"create extension {extension} cascade; drop extension {extension}")


async def test_what_reaches_other_servers_and_files_stays_with_the_superuser(own: Postgres) -> None:
    async with client(own, await made(own)) as connection:
        everything = await connection.fetch("select name from pg_available_extensions")
        forbidden = {
            "dblink",
            "postgres_fdw",
            "file_fdw",
            "pageinspect",
            "pg_walinspect",
            "pg_surgery",
        }
        assert forbidden <= {row["name"] for row in everything}
        for extension in forbidden:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"create extension {extension}")


async def test_what_an_extension_brings_is_not_the_owners_to_change(own: Postgres) -> None:
    async with client(own, await made(own, "create extension vector")) as connection:
        for forbidden in (
            "create or replace function vector_dims(vector) returns int language sql as 'select 1'",
            "alter function vector_dims(vector) owner to current_user",
            "create function f() returns int language c as '$libdir/vector', 'vector_dims'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)


@pytest.mark.parametrize("extension", extensions._INSTEAD)
async def test_what_the_build_lacks_is_said_with_what_there_is_instead(own: Postgres, extension: str) -> None:
    async with client(own, await made(own)) as connection:
        with pytest.raises(asyncpg.FeatureNotSupportedError) as refusal:
            await connection.execute(f'create extension if not exists "{extension}"')
        assert f"this Postgres was built without {extension}" in str(refusal.value)
        assert "--postgres-bin" in str(refusal.value.hint)
        assert extensions._INSTEAD[extension].split(" ")[0] in str(refusal.value.hint)
        assert "installed on the system" not in str(refusal.value)
        await connection.fetchval("select gen_random_uuid()")


async def test_without_a_superuser_a_setting_of_an_extension_is_left_out(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """It is known only where the extension is loaded, and only a superuser may set what is unknown."""
    source, branch = await made(postgres), name()
    async with superuser(postgres) as connection:
        await connection.execute(f"alter database {source} set hnsw.ef_search = 77")
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        there = await connection.fetchval("select current_setting('hnsw.ef_search', true)") == "77"
    assert there == postgres._superuser
    assert ("hnsw.ef_search" in caplog.text) != there


def test_what_the_installation_has_itself_is_left_to_it(tmp_path: Path) -> None:
    there = tmp_path / "it's" / "share" / "extension"
    there.mkdir(parents=True)
    (there / "pgcrypto.control").write_text("default_version = '1.0'")
    (there / "plpgsql.control").write_text("default_version = '1.0'")
    (there / "vector.control").write_text("default_version = '1.0'\ntrusted = false\ndirectory = 'elsewhere'")
    (tmp_path / "cluster").mkdir()
    for _ in range(2):
        place = extensions.allow_extensions(Binaries(tmp_path / "it's" / "bin", 99), tmp_path / "cluster")
    assert place == tmp_path / "cluster" / "extensions"
    ours = {path.name: path.read_text() for path in (place / "extension").iterdir()}
    assert set(ours) == {"vector.control", "uuid-ossp.control", "uuid-ossp--0.sql"}
    assert ours["vector.control"] == (
        f"default_version = '1.0'\ntrusted = true\ndirectory = '{tmp_path}/it''s/share/extension'\n"
    )


def test_a_directory_that_the_setting_cannot_name_is_left_out(tmp_path: Path) -> None:
    assert extensions.allow_extensions(find(), tmp_path / "a:b") is None
