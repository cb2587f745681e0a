"""Text in other letters than ASCII's: the same answers on every version, and whatever locales the system has."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from infrai_async.local.postgres import server
from infrai_async.local.postgres.databases import Postgres

from .conftest import NEWEST, OLDEST, client, everywhere, made, temporary

pytestmark = pytest.mark.anyio

ANSWERS = {
    "upper('äß')": "Äß",
    "lower('ÄÖΣ')": "äöσ",
    "initcap('élan vital')": "Élan Vital",
    "'É' ilike 'é'": True,
    "'É' ~* 'é'": True,
    "'ä' ~ '^[[:alpha:]]$'": True,
    "'ä' ~ '^\\w$'": True,
    "to_tsvector('simple', 'ÄNNE Élan')::text": "'änne':1 'élan':2",
    "to_tsvector('german', 'Übungen')::text": "'ubung':1",
    "to_tsvector('running')::text": "'run':1",
    "'ÄNNE'::citext = 'änne'": True,
    "show_trgm('Ä') = show_trgm('ä') and show_trgm('Ä') <> show_trgm('Ö')": True,
    "unaccent('Élan')": "Elan",
    "array(select x from unnest(array['b', 'Ä', 'a', 'B', 'é', 'z']) x order by x)::text": "{B,a,b,z,Ä,é}",
}

# ICU has rules of its own for ß, for a sigma at the end and for the order; full text asks the system all the same.
ANSWERS_OF_ANY_LOCALE = {
    "upper('ä')": "Ä",
    "lower('ÄÖ')": "äö",
    "initcap('élan vital')": "Élan Vital",
    "'É' ilike 'é'": True,
    "'É' ~* 'é'": True,
    "'ä' ~ '^[[:alpha:]]$'": True,
}


async def answers(postgres: Postgres) -> dict[str, object]:
    database = await made(postgres, "create extension citext; create extension pg_trgm; create extension unaccent")
    async with client(postgres, database) as connection:
        return {question: await connection.fetchval(f"select {question}") for question in ANSWERS}


@everywhere
async def test_other_letters_are_letters(postgres: Postgres) -> None:
    assert await answers(postgres) == ANSWERS


@everywhere
async def test_a_unique_index_sees_through_capitals(postgres: Postgres) -> None:
    database = await made(postgres, "create table people (name text); create unique index on people (lower(name))")
    async with client(postgres, database) as connection:
        await connection.execute("insert into people values ('ÄNNE')")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("insert into people values ('änne')")


@pytest.mark.parametrize("binaries", sorted({NEWEST, OLDEST}))
async def test_a_system_without_the_locale_has_another_that_will_do(
    monkeypatch: pytest.MonkeyPatch, binaries: Path
) -> None:
    real = server.locales

    def nowhere(major: int) -> list[list[str]]:
        return [[option.replace("ctype=", "ctype=nowhere.") for option in options] for options in real(major)]

    monkeypatch.setattr(server, "locales", nowhere)
    async with temporary(binaries=binaries) as postgres, client(postgres, await made(postgres)) as connection:
        for question, answer in ANSWERS_OF_ANY_LOCALE.items():
            assert await connection.fetchval(f"select {question}") == answer, question
