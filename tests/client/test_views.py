"""Views of a subclass, the settings of a client, and why a client is not copied."""

from __future__ import annotations

import copy
import pickle
from functools import cached_property
from typing import Any, TypeVar

import pytest
from support.oracle import SMALL, Oracle, answer

from infrai_async import AsyncInfrai, Infrai, RetryPolicy, fan_out

pytestmark = pytest.mark.anyio
KEY = "ifr_key_0123456789"
NOWHERE = "http://127.0.0.1:9"
Client = TypeVar("Client", AsyncInfrai, Infrai)


class _Team:
    __slots__ = ("__private", "region", "unset")

    def __init__(self) -> None:
        self.__private = "p"
        self.region = "eu"

    def private(self) -> str:
        return self.__private


class Team(AsyncInfrai, _Team):
    def __init__(self, team: str, **options: Any) -> None:
        AsyncInfrai.__init__(self, KEY, **options)
        _Team.__init__(self)
        self.team = team
        self.seen = [team]

    @cached_property
    def projects(self) -> Any:
        return self.db.project


class BlockingTeam(Infrai, _Team):
    def __init__(self, team: str, **options: Any) -> None:
        Infrai.__init__(self, KEY, **options)
        _Team.__init__(self)
        self.team = team
        self.seen = [team]

    @cached_property
    def projects(self) -> Any:
        return self.db.project


@pytest.mark.parametrize("cls", [Team, BlockingTeam])
def test_a_view_has_what_a_subclass_added(cls: Any) -> None:
    client = cls("a", base_url=NOWHERE)
    assert client.projects is client.projects
    for view in (client.with_options(timeout=3), client.with_options(timeout=3).with_options(retry=RetryPolicy.none())):
        assert type(view) is cls
        assert (view.team, view.region, view.private()) == ("a", "eu", "p")
        assert view.seen is client.seen
        assert not hasattr(view, "unset")
        assert view.projects is not client.projects  # it belongs to the settings of its client
        assert view.db is not client.db


async def test_what_a_subclass_caches_is_made_anew_for_a_views_settings() -> None:
    with Oracle(lambda _: answer(SMALL)) as oracle:
        async with Team("a", base_url=oracle.url) as client:
            await client.projects.get("p")
            await client.with_options(headers={"X-View": "1"}).projects.get("p")
    assert [seen.headers.get("x-view") for seen in oracle.seen] == [None, "1"]


@pytest.mark.parametrize("cls", [AsyncInfrai, Infrai])
def test_the_settings_make_another_client_without_the_key(cls: Any) -> None:
    heard: list[object] = []
    options = {
        "base_url": "http://proxied.test",
        "timeout": 7.0,
        "retry": RetryPolicy(max_attempts=2),
        "max_concurrency": 3,
        "proxy": "http://user:PROXY_PASSWORD@127.0.0.1:1",
        "trust_env": True,
        "ssl": None,
        "allow_http": True,
        "headers": {"X-Token": "HEADER_SECRET"},
        "on_event": heard.append,
    }
    client = cls(KEY, **options)
    settings = client.settings
    assert settings == options
    assert cls("other", **settings).settings == settings
    for secret in (KEY, "PROXY_PASSWORD", "HEADER_SECRET"):
        assert secret not in repr(settings)
    settings["timeout"] = 1  # a copy
    assert client.settings["timeout"] == 7.0
    view = client.with_options(timeout=None, headers={"X-Other": "1"})
    assert (view.settings["timeout"], view.settings["headers"]) == (None, {"X-Other": "1"})


@pytest.mark.parametrize("cls", [AsyncInfrai, Infrai])
def test_the_settings_travel_to_another_process_and_to_the_other_face(cls: Any) -> None:
    client = cls(KEY, base_url=NOWHERE, headers={"X-A": "1"})
    settings = pickle.loads(pickle.dumps(client.settings))
    for face in (AsyncInfrai, Infrai):
        assert face("other", **settings).settings == settings


@pytest.mark.parametrize("cls", [AsyncInfrai, Infrai, Team, BlockingTeam])
@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda act: act.__name__)
def test_a_client_that_is_copied_says_why_not_and_what_to_do(cls: Any, act: Any) -> None:
    client = cls("a", base_url=NOWHERE)
    for one in (client, client.with_options(timeout=1)):
        with pytest.raises(TypeError, match=rf"{cls.__name__} cannot be pickled or copied.*client\.settings"):
            act(one)


@pytest.mark.parametrize("cls", [AsyncInfrai, Infrai])
def test_what_holds_a_client_is_not_pickled_either(cls: Any) -> None:
    client = cls("a", base_url=NOWHERE)
    for held in (client.db, client.db.project, [client]):
        with pytest.raises(TypeError, match="client"):
            pickle.dumps(held)


class Mine(AsyncInfrai):
    def __init__(self) -> None:
        super().__init__(KEY, base_url=NOWHERE)
        self.db = "a database of its own"  # type: ignore[assignment]


def test_what_a_subclass_puts_in_place_of_ours_stays_in_its_views() -> None:
    client = Mine()
    assert client.storage is client.storage
    view = client.with_options(timeout=1)
    assert view.db is client.db
    assert view.storage is not client.storage


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1/v1", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/a/v1/v1/"])
def test_the_settings_lead_to_the_same_address(url: str) -> None:
    settings = AsyncInfrai(KEY, base_url=url).settings
    assert AsyncInfrai(KEY, **settings).settings == settings


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy], ids=lambda act: act.__name__)
def test_what_reads_through_a_client_is_not_copied(act: Any) -> None:
    client, blocking = AsyncInfrai("k", base_url=NOWHERE), Infrai("k", base_url=NOWHERE)
    listings = [face.db.project.list() for face in (client, blocking)]
    for one in (
        *listings,
        *(listing.pages() for listing in listings),
        client.db.inventory(),
        blocking.db.inventory(),
        fan_out([], list),
        blocking.fan_out([], list),
    ):
        with pytest.raises(TypeError, match="cannot be pickled or copied, because it reads through its client"):
            act(one)
    for block in (client.budget(1), client.deadline(1), client.operation("a")):
        with pytest.raises(TypeError, match=rf"make one with client\.{type(block).__name__.lower()}\(...\) in each"):
            act(block)
