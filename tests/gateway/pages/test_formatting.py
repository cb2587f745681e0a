"""How the pages write money, sizes, times and texts."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from markupsafe import Markup

from infrai_async.local.pages import formatting


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("2", "2.00"),
        ("1.99989", "1.99989"),
        ("0", "0.00"),
        ("1000000", "1,000,000.00"),
        ("0.000000001", "0.000000001"),
    ],
)
def test_money_is_written_to_its_last_digit(value: str, written: str) -> None:
    assert formatting.money(Decimal(value)) == formatting.money(value) == written
    assert formatting.money(value, separator="") == written.replace(",", "")


def test_small_amounts_can_have_more_decimal_places() -> None:
    assert formatting.money("0.0001", digits=5) == "0.00010"


def test_nano_dollars_are_exact() -> None:
    assert formatting.usd(1_234_567_890_123_456_789) == Decimal("1234567890.123456789")


@pytest.mark.parametrize(
    ("count", "written"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (10**12, "1,000.0 GB")]
)
def test_sizes(count: int, written: str) -> None:
    assert formatting.size(count) == written


def test_a_share_of_nothing_is_none() -> None:
    assert formatting.share(0, 0) is None
    assert formatting.share(1, 3) == "33.3%"


@pytest.mark.parametrize(("count", "written"), [(0, "0 flags"), (1, "1 flag"), (1234, "1,234 flags")])
def test_one_of_something_is_not_many(count: int, written: str) -> None:
    assert formatting.many(count, "flag", "flags") == written


def test_endless_texts_are_cut() -> None:
    assert formatting.readable("x" * 200) == "x" * 200
    assert formatting.readable("x" * 10_000) == "x" * 199 + "…"


def test_what_is_invisible_is_spelled_out_except_in_html() -> None:
    assert formatting.readable("a\tb\u202e") == r"a\tb\u202e"
    assert formatting.readable(7) == "7"
    html = Markup("<p>\n</p>" * 100)
    assert formatting.readable(html) is html


def test_json_keeps_every_character() -> None:
    assert formatting.as_json({"é": None}) == '{"é": null}'


def test_times_are_those_of_this_machine() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for value in (moment, "2026-01-02T03:04:05Z"):
        local = formatting.local_time(value)
        assert local == moment
        assert local.utcoffset() == moment.astimezone().utcoffset()
