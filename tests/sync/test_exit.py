"""However a process with a client ends, it ends soon, in silence and with its own exit code."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support.patience import SOON, until
from sync.children import Attentive, by_name, run

from infrai_async import Infrai

PRELUDE = """
import atexit, gc, os, sys, threading, time
from infrai_async import Infrai, InfraiError
URL = sys.argv[1]

def until(condition):
    end = time.monotonic() + 25
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)

def say(what):
    print(what, flush=True)
"""


@pytest.fixture
def oracle() -> Iterator[Attentive]:
    with Attentive(by_name) as oracle:
        yield oracle


def ends(script: str, oracle: Attentive, *, url: str | None = None) -> tuple[str, str, int]:
    began = time.monotonic()
    result = run(PRELUDE + script, url or oracle.url)
    assert time.monotonic() - began < SOON
    return result


AT_MODULE_LEVEL = """
client = Infrai("k", base_url=URL)
say(client.db.project.get("p").id)
"""
IN_A_FUNCTION = """
def use():
    say(Infrai("k", base_url=URL).db.project.get("p").id)
use()
"""
IN_A_CYCLE = """
class Service:
    def __init__(self):
        self.client = Infrai("k", base_url=URL)
        self.me = self
say(Service().client.db.project.get("p").id)
"""
FROM_A_THREAD = """
client = Infrai("k", base_url=URL)
thread = threading.Thread(target=lambda: say(client.db.project.get("p").id))
thread.start()
thread.join()
"""
FROM_A_THREAD_THAT_IS_STILL_CALLING = """
client = Infrai("k", base_url=URL)
def call():
    client.db.project.get("brief")
    say(client.db.project.get("p").id)
threading.Thread(target=call).start()
"""
UNFINISHED_LOOP = """
client = Infrai("k", base_url=URL)
for one in client.db.project.list():
    say(one.id)
    break
"""
UNFINISHED_NEXT = """
client = Infrai("k", base_url=URL)
cursor = client.db.project.list()
iterator = iter(cursor)
say(next(iterator).id)
"""
AFTER_AN_ERROR = """
client = Infrai("k", base_url="http://127.0.0.1:1", timeout=5)
try:
    client.db.project.delete("p")
except InfraiError as error:
    kept = error
    say("p")
"""
CLOSED = """
client = Infrai("k", base_url=URL)
say(client.db.project.get("p").id)
client.close()
"""
NEVER_USED = """
client = Infrai("k", base_url=URL)
say("p")
"""
MANY = """
clients = [Infrai("k", base_url=URL) for _ in range(20)]
assert {client.db.project.get("p").id for client in clients} == {"p"}
say("p")
"""
IN_A_RUNNING_LOOP = """
import asyncio
client = Infrai("k", base_url=URL)
async def main():
    say(client.db.project.get("p").id)
asyncio.run(main())
"""
BOTH_CLIENTS = """
import asyncio
from infrai_async import AsyncInfrai
client, other = Infrai("k", base_url=URL), AsyncInfrai("k", base_url=URL)
async def main():
    assert (await other.db.project.get("p")).id == client.db.project.get("p").id
    say("p")
asyncio.run(main())
"""
no_thread_at_exit = pytest.mark.skipif(
    sys.version_info[:3] in ((3, 12, 0), (3, 12, 1)), reason="Python 3.12.0 and .1 start no thread at exit"
)
ALL_WAYS = {
    "at module level": AT_MODULE_LEVEL,
    "in a function": IN_A_FUNCTION,
    "in a cycle": IN_A_CYCLE,
    "from a thread": FROM_A_THREAD,
    "from a thread that is still calling": FROM_A_THREAD_THAT_IS_STILL_CALLING,
    "in a loop that was left": UNFINISHED_LOOP,
    "with an iterator in hand": UNFINISHED_NEXT,
    "after an error that is kept": AFTER_AN_ERROR,
    "and closed": CLOSED,
    "never": NEVER_USED,
    "with many others": MANY,
    "in a running loop": IN_A_RUNNING_LOOP,
    "beside an asynchronous one": BOTH_CLIENTS,
}


@pytest.fixture
def lists(oracle: Attentive) -> None:
    from support.oracle import SMALL, Reply, Seen, answer

    def reply(seen: Seen) -> Reply:
        if seen.path.endswith("/list"):
            return answer({"items": [{**SMALL, "id": "p"}] * 3, "next_cursor": "more"})
        return by_name(seen)

    oracle.reply = reply


@pytest.mark.usefixtures("lists")
@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[no_thread_at_exit] if "still" in way else []) for way in ALL_WAYS]
)
def test_a_process_ends_in_silence_with_a_client_that_was_used(oracle: Attentive, way: str) -> None:
    assert ends(ALL_WAYS[way], oracle) == ("p\n", "", 0)


@pytest.mark.parametrize(
    "way",
    [
        "at module level",
        "in a function",
        "from a thread",
        pytest.param("from a thread that is still calling", marks=no_thread_at_exit),
        "and closed",
    ],
)
def test_a_process_ends_in_silence_with_a_client_that_resolved_a_name(oracle: Attentive, way: str) -> None:
    # A name is resolved by the loop's executor, whose threads Python itself waits for at the end.
    url = oracle.url.replace("127.0.0.1", "localhost")
    assert ends(ALL_WAYS[way], oracle, url=url) == ("p\n", "", 0)


@pytest.mark.parametrize(("calls", "threads"), [("slow", 1), ("slow", 4), ("brief", 4)])
def test_a_daemon_thread_in_the_middle_of_a_call_ends_with_the_process_in_silence(
    oracle: Attentive, calls: str, threads: int
) -> None:
    script = f"""
client = Infrai("k", base_url=URL)
def call():
    while True:
        client.db.project.get({calls!r})
for _ in range({threads}):
    threading.Thread(target=call, daemon=True).start()
until(lambda: client.stats.in_flight == {threads})
say("p")
"""
    assert ends(script, oracle) == ("p\n", "", 0)


def test_daemon_threads_that_call_all_the_time_end_with_the_process_in_silence(oracle: Attentive) -> None:
    script = """
client = Infrai("k", base_url=URL)
def call():
    while True:
        client.db.project.get("p")
for _ in range(4):
    threading.Thread(target=call, daemon=True).start()
until(lambda: client.stats.calls > 20)
say("p")
"""
    for _ in range(2):
        assert ends(script, oracle) == ("p\n", "", 0)


AT_EXIT_FIRST = """
import atexit, sys
def last():
    print(client.db.project.get("last").id, flush=True)
atexit.register(last)
from infrai_async import Infrai
client = Infrai("k", base_url=sys.argv[1])
"""
AT_EXIT_LAST = """
import atexit, sys
from infrai_async import Infrai
client = Infrai("k", base_url=sys.argv[1])
def last():
    print(client.db.project.get("last").id, flush=True)
atexit.register(last)
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize(
    "used", [True, pytest.param(False, marks=no_thread_at_exit)], ids=["used before", "not used before"]
)
@pytest.mark.parametrize(
    "registered",
    [
        pytest.param(AT_EXIT_FIRST, id="registered before the package was imported", marks=no_thread_at_exit),
        pytest.param(AT_EXIT_LAST, id="registered after the package was imported"),
    ],
)
def test_a_handler_of_the_users_calls_at_exit(oracle: Attentive, registered: str, used: bool, host: str) -> None:
    script = registered + ("\nassert client.db.project.get('p').id == 'p'\n" if used else "")
    url = oracle.url.replace("127.0.0.1", host)
    began = time.monotonic()
    assert run(script, url) == ("last\n", "", 0)
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize("registered", [AT_EXIT_FIRST, AT_EXIT_LAST], ids=["before", "after"])
def test_a_handler_of_the_users_closes_at_exit(oracle: Attentive, registered: str) -> None:
    script = registered.replace('print(client.db.project.get("last").id, flush=True)', "client.close()")
    assert ends(f"{script}\nsay(client.db.project.get('p').id)\n", oracle) == ("p\n", "", 0)


@pytest.mark.parametrize(
    ("ending", "code", "complaint"),
    [
        pytest.param("sys.exit(5)", 5, "", id="sys.exit"),
        pytest.param("sys.exit('no')", 1, "no\n", id="sys.exit with a message"),
        pytest.param("raise ValueError('mine')", 1, "ValueError: mine\n", id="an exception"),
    ],
)
def test_leaving_a_with_block_by_an_exception_closes_and_ends_as_ever(
    oracle: Attentive, ending: str, code: int, complaint: str
) -> None:
    script = f"""
def call():
    try:
        client.db.project.get("slow")
    except InfraiError:
        pass
with Infrai("k", base_url=URL) as client:
    client.close = lambda: type(client).close(client, 0.5)
    threading.Thread(target=call, daemon=True).start()
    until(lambda: client.stats.in_flight)
    {ending}
"""
    printed, complaints, exit_code = ends(script, oracle)
    assert (printed, exit_code) == ("", code)
    assert complaints.endswith(complaint)
    assert complaints.count("Traceback") == complaint.startswith("ValueError")
    assert "infrai" not in complaints.partition("Traceback")[2].replace("infrai_async import", "")


def test_an_exception_that_ends_the_process_shows_only_itself(oracle: Attentive) -> None:
    script = """
client = Infrai("k", base_url=URL)
client.db.project.get("p")
raise ValueError("mine")
"""
    printed, complaints, code = ends(script, oracle)
    assert (printed, code) == ("", 1)
    assert complaints.splitlines()[-1] == "ValueError: mine"
    assert complaints.count("Traceback") == 1


KEY_THAT_BLOCKS = """
reached = threading.Event()
def key():
    reached.set()
    time.sleep(60)
    return "k"
client = Infrai(key, base_url=URL)
threading.Thread(target=client.db.project.get, args=("p",), daemon=True).start()
reached.wait()
"""


@pytest.mark.parametrize("ending", ["sys.exit(3)", "del client; gc.collect()"])
def test_a_loop_that_is_blocked_by_a_key_function_holds_up_the_end_for_a_moment_only(
    oracle: Attentive, ending: str
) -> None:
    assert ends(KEY_THAT_BLOCKS + ending, oracle) == ("", "", 3 if "3" in ending else 0)


def test_closing_a_client_whose_loop_is_blocked_ends_and_sends_its_callers_away(oracle: Attentive) -> None:
    script = """
ended = []
def call(name):
    try:
        client.db.project.get(name)
    except InfraiError as error:
        ended.append(type(error).__name__)
reached = threading.Event()
def key():
    reached.set()
    time.sleep(60)
    return "k"
client = Infrai(key, base_url=URL)
threads = [threading.Thread(target=call, args=("first",))]
threads[0].start()
reached.wait()
threads.append(threading.Thread(target=call, args=("second",)))
threads[1].start()
until(lambda: len(client._runner._thread_calls) == 2)
client.close(grace=0)
for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
say(sorted(ended))
sys.stderr.flush()
os._exit(0)  # how it ends is another test
"""
    printed, complaints, code = run(PRELUDE + script, oracle.url)
    assert (complaints, code) == ("", 0)
    assert printed == "['ClientClosedError', 'TransportError']\n"


@pytest.mark.parametrize("way", ["del", "cycle", "cursor"])
def test_a_dropped_client_ends_its_thread_and_closes_its_connections(oracle: Attentive, way: str) -> None:
    before = set(threading.enumerate())
    client = Infrai("k", base_url=oracle.url)
    client.db.project.get("p")
    assert oracle.open_connections == 1
    (thread,) = set(threading.enumerate()) - before
    if way == "cycle":
        client.me = client  # type: ignore[attr-defined]
    if way == "cursor":
        cursor = client.db.project.list()
        del client
        gc.collect()
        assert thread.is_alive()  # the cursor can still be read
        del cursor
    else:
        del client
    gc.collect()
    until(lambda: oracle.open_connections == 0)
    thread.join(60)
    assert not thread.is_alive()


def test_many_clients_that_are_dropped_at_once_say_nothing(
    oracle: Attentive, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their loops then take longer to end than their sessions are given to be closed with them.
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: complaints.append(ignored.exc_value))
    before = set(threading.enumerate())
    for _ in range(5):
        clients = [Infrai("k", base_url=oracle.url) for _ in range(40)]
        assert {client.db.project.get("p").id for client in clients} == {"p"}
        clients.clear()
        gc.collect()
        until(lambda: oracle.open_connections == 0)
        until(lambda: set(threading.enumerate()) <= before)
    gc.collect()
    complaints += [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert complaints == []


def test_a_client_dropped_by_its_last_callers_thread_ends_too(oracle: Attentive) -> None:
    before = set(threading.enumerate())

    def use() -> None:
        client = Infrai("k", base_url=oracle.url)
        assert client.db.project.get("p").id == "p"

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    gc.collect()
    until(lambda: oracle.open_connections == 0)
    until(lambda: set(threading.enumerate()) <= before)


def test_a_view_keeps_the_client_running_and_is_the_last_to_go(oracle: Attentive) -> None:
    before = set(threading.enumerate())
    view = Infrai("k", base_url=oracle.url).with_options(timeout=5)
    gc.collect()
    assert [view.db.project.get("p").id for _ in range(2)] == ["p", "p"]
    assert oracle.connections == 1
    del view
    gc.collect()
    until(lambda: oracle.open_connections == 0)
    until(lambda: set(threading.enumerate()) <= before)
