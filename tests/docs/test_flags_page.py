"""The page on flags: its snippets print what it shows, and its tables and numbers are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from infrai_async.local import LocalGateway
from infrai_async.local.targeting import evaluation, rules
from infrai_async.local.targeting import rollout as sticky
from infrai_async.local.targeting.operators import ALIASES, OPERATORS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "flags.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    gateway = LocalGateway(postgres_bin=tmp_path)  # where there is none: flags need none
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(gateway):
        known = {"INFRAI_BASE_URL": gateway.base_url, "INFRAI_API_KEY": gateway.api_key}
        yield {**os.environ, **known, "PYTHONIOENCODING": "utf-8"}


def test_every_snippet_has_its_output() -> None:
    assert len(SNIPPETS) == PAGE.count("```python") > 2


@pytest.mark.parametrize(("snippet", "output"), SNIPPETS)
def test_a_snippet_prints_what_the_page_shows(snippet: str, output: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-c", snippet]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=100)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", output)


def test_the_pages_formula_is_the_gateways() -> None:
    published: dict[str, object] = {}
    (formula,) = (snippet for snippet, _ in SNIPPETS if "def place" in snippet)
    exec(formula.partition("\nfor unit in")[0], published)
    for weights in ([1], [50, 30.5, 19.5], [0, 0.1, 0.2, 0.7, 0], [3, 1e-9, 2**52]):
        variants = [{"key": str(key), "value": key, "weight": weight} for key, weight in enumerate(weights)]
        for number in range(300):
            rollout = {
                "percentage": number / 3,
                "salt": f"s{number % 7}",
                "sticky_unit": "user_id",
                "variants": variants,
            }
            unit = f"user-{number}"
            inside = published["is_inside"](rollout["percentage"], rollout["salt"], unit)  # type: ignore[operator]
            drawn = published["variant"](rollout["salt"], unit, weights)  # type: ignore[operator]
            assert inside == sticky.is_inside(rollout, {"user_id": unit})
            assert str(drawn) == sticky.name_of(sticky.pick(rollout, {"user_id": unit}))


def test_the_page_lists_the_operators_that_there_are() -> None:
    table = PAGE.partition("| operator |")[2].partition("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == sorted(OPERATORS, key=_listed)
    (others,) = re.findall(r"Also understood: (.*)", PAGE)
    assert set(re.findall(r"`([^`]+)`", others)) == {*ALIASES, "eq", "not_eq", "matches"}


def _listed(name: str) -> int:
    return PAGE.index(f"`{name}`", PAGE.index("| operator |"))


def test_the_page_names_every_reason_and_limit() -> None:
    source = Path(str(evaluation.__file__)).read_text(encoding="utf-8")
    reasons = set(re.findall(r'"(archived|disabled|rule_match|\w+_rollout|enabled)"\)', source))
    assert len(reasons) == 6
    assert reasons == {line.split("|")[3].strip(" `") for line in PAGE.splitlines() if line.count("|") == 5} - {
        "reason",
        "---",
    }
    limits = (
        f"{rules._MOST} conditions and {rules._MOST_PATTERNS} patterns",
        f"nested {rules._DEEPEST} deep, and {sticky._MOST_VARIANTS} variants",
    )
    assert [limit for limit in limits if limit not in PAGE] == []
