"""The documentation's own programs, unchanged but for the base address and ids, run against the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
SEEDS = Path(__file__).parents[1] / "contract" / "seeds"


def program(number: str) -> str:
    """The single-file Python program at the end of a seed document."""
    [seed] = SEEDS.glob(f"{number}_*.txt")
    _, _, text = seed.read_text(encoding="utf-8").rpartition("#!/usr/bin/env python3")
    assert text, "the seed holds no program"
    return "#!/usr/bin/env python3" + text


def fill(text: str, api: Any, **values: str) -> str:
    """Put the base address and the ids in, nothing else."""
    text = text.replace('BASE = "https://api.infrai.cc"', f"BASE = {api.base_url!r}")
    for name, value in values.items():
        text, count = re.subn(rf'"{name}":"\.\.\."', f'"{name}":{value}', text)
        assert count, f"the program has no {name} to fill in"
    return text


async def run(text: str, api: Any) -> dict[str, Any]:
    """Run a program and return what it printed, by heading."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"INFRAI_API_KEY": api.api_key},
    )
    printed, _ = await process.communicate(text.encode())
    assert process.returncode == 0
    pieces = re.split(r"^== (.+) ==$", printed.decode(), flags=re.MULTILINE)[1:]
    return {heading: json.loads(body) for heading, body in zip(pieces[::2], pieces[1::2], strict=True)}


async def test_the_db_program_makes_a_project_branches_it_and_lists_it(api: Any) -> None:
    text = fill(program("001"), api, name='"shop"', project_id='r1["data"]["id"]', branch_name='"preview"')
    said = await run(text, api)
    assert list(said) == ["db.project.create", "db.branch.create", "db.project.list"]
    assert all(answer["ok"] for answer in said.values())
    project, branch, listed = (answer["data"] for answer in said.values())
    assert branch["project_id"] == project["id"]
    assert listed["items"] == [project]
    assert project["connection_uri"].startswith("postgresql://")


async def test_the_cdn_program_makes_a_distribution_purges_it_and_lists_it(api: Any) -> None:
    text = fill(program("003"), api, origin='"https://origin.example"', distribution_id='r1["data"]["distribution_id"]')
    said = await run(text, api)
    assert list(said) == ["cdn.distribution.create", "cdn.cache.purge", "cdn.distribution.list"]
    distribution, purged, listed = (answer["data"] for answer in said.values())
    assert purged["ok"] is True
    assert listed["items"] == [distribution]


async def test_the_flags_program_sets_a_flag_and_lists_it(api: Any) -> None:
    said = await run(fill(program("004"), api), api)
    assert list(said) == ["flags.set", "flags.list"]
    flag, listed = (answer["data"] for answer in said.values())
    assert (flag["key"], flag["type"], flag["version"]) == ("new_checkout", "bool", 1)
    assert listed["items"] == [flag]
