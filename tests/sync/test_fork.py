"""A forked child has connections and a loop of its own; neither process disturbs the other, or itself at its end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sync.children import FORKING, SOON, Attentive, Child, by_name, run, until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork")

PRELUDE = """
import os, sys, threading, time
from infrai_async import ClientClosedError, Infrai

def until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)

def say(what):
    os.write(1, f"{what}\\n".encode())  # in one piece, whichever process says it

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

client = Infrai("k", base_url=sys.argv[1], max_concurrency=4)
get = client.db.project.get
"""


@pytest.fixture
def oracle() -> Iterator[Attentive]:
    with Attentive(by_name) as oracle:
        yield oracle


def ends(script: str, oracle: Attentive) -> tuple[list[str], str, int]:
    printed, complaints, code = run(PRELUDE + script, oracle.url, options=FORKING)
    return printed.splitlines(), complaints, code


def connections(oracle: Attentive) -> dict[str, set[int]]:
    """The connections that calls came over, by the first word of the name that they asked for."""
    found: dict[str, set[int]] = {}
    for seen in oracle.seen:
        found.setdefault(seen.path.rpartition("/")[2].partition("-")[0], set()).add(seen.connection)
    return found


def test_parent_and_child_call_at_once_over_connections_of_their_own(oracle: Attentive) -> None:
    script = """
get("parent-before")
child = os.fork()
name = "parent" if child else "child"
for number in range(50):
    assert get(f"{name}-{number}").id == f"{name}-{number}"
if child:
    say(wait(child))
"""
    assert ends(script, oracle) == (["0"], "", 0)
    assert connections(oracle) == {"parent": {1}, "child": {2}}


@pytest.mark.parametrize("uses", [True, False], ids=["that uses the client", "that never uses it"])
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        pytest.param("", 0, id="falls off the end"),
        pytest.param("sys.exit()", 0, id="exits"),
        pytest.param("sys.exit(3)", 3, id="exits with a code"),
        pytest.param("os._exit(4)", 4, id="leaves at once"),
        pytest.param("client.close()", 0, id="closes the client"),
        pytest.param("del client, get; import gc; gc.collect()", 0, id="drops the client"),
    ],
)
def test_a_child_ends_in_silence(oracle: Attentive, uses: bool, ending: str, code: int) -> None:
    script = f"""
get("parent-before")
child = os.fork()
if child == 0:
    {'say(get("child").id)' if uses else "pass"}
    {ending}
else:
    say(wait(child))
    say(get("parent").id)
"""
    assert ends(script, oracle) == ([*(["child"] if uses else []), str(code), "parent"], "", 0)


@pytest.mark.parametrize("ending", ["client.close(); sys.exit()", "os._exit(0)"])
def test_a_child_of_another_thread_ends_in_silence(oracle: Attentive, ending: str) -> None:
    # With the client open, sys.exit would wait for ever: Python never finalizes such a child (the thread that forked is
    # not its main thread), so that any other thread keeps it alive, a daemon thread too. Nothing of ours changes that.
    script = f"""
def fork():
    get("parent-before")
    child = os.fork()
    if child == 0:
        say(get("child").id)
        {ending}
    say(wait(child))
thread = threading.Thread(target=fork)
thread.start()
thread.join()
"""
    assert ends(script, oracle) == (["child", "0"], "", 0)


@pytest.mark.parametrize("uses", [True, False], ids=["that uses the client", "that never uses it"])
@pytest.mark.parametrize("calls", [1, 8], ids=["a call", "calls and waiting ones"])
def test_a_fork_in_the_middle_of_other_threads_calls_concerns_only_the_parent(
    oracle: Attentive, calls: int, uses: bool
) -> None:
    script = f"""
threads = [threading.Thread(target=lambda: say(get("brief").id)) for _ in range({calls})]
for thread in threads:
    thread.start()
until(lambda: client.stats.in_flight + client.stats.waiting == {calls})
child = os.fork()
if child == 0:
    assert client.stats.in_flight == client.stats.waiting == 0
    {'say(get("child").id)' if uses else "pass"}
    sys.exit()
say(wait(child))
for thread in threads:
    thread.join()
"""
    printed, complaints, code = ends(script, oracle)
    assert (sorted(printed), complaints, code) == (
        sorted(["0", *["brief"] * calls, *(["child"] if uses else [])]),
        "",
        0,
    )
    assert len(oracle.seen) == calls + uses
    assert not uses or connections(oracle)["child"].isdisjoint(connections(oracle)["brief"])
    assert oracle.hung_up == []


def test_a_child_forked_in_the_first_call_of_another_thread_can_call(oracle: Attentive) -> None:
    script = """
for number in range(10):
    client = Infrai("k", base_url=sys.argv[1])
    thread = threading.Thread(target=client.db.project.get, args=("parent",))
    thread.start()
    child = os.fork()
    if child == 0:
        say(client.db.project.get("child").id)
        client.close()
        sys.exit()
    assert wait(child) == 0
    thread.join()
    client.close()
"""
    assert ends(script, oracle) == (["child"] * 10, "", 0)


def test_a_child_forked_while_the_loops_thread_imports_can_call(oracle: Attentive) -> None:
    # The lock of a module that another thread imports stays locked in the child for ever.
    script = """
reached, forked = threading.Event(), threading.Event()
class Watching:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            forked.wait(5)
sys.meta_path.insert(0, Watching)
thread = threading.Thread(target=lambda: (get("parent"), reached.set()))
thread.start()
reached.wait()
child = os.fork()
forked.set()
if child == 0:
    say(get("child").id)
    sys.exit()
say(wait(child))
thread.join()
"""
    printed, complaints, code = run(PRELUDE + script, oracle.url, options=FORKING, bound=5)
    assert (printed, complaints, code) == ("child\n0\n", "", 0)


def test_a_fork_before_the_first_use_leaves_both_as_they_were(oracle: Attentive) -> None:
    script = """
assert threading.active_count() == 1
child = os.fork()
name = "parent" if child else "child"
say(get(name).id)
if child:
    say(wait(child))
    client.close()
    say(threading.active_count())
"""
    printed, complaints, code = ends(script, oracle)
    assert (sorted(printed), printed[-1], complaints, code) == (["0", "1", "child", "parent"], "1", "", 0)


def test_the_child_of_a_closed_clients_parent_is_refused(oracle: Attentive) -> None:
    script = """
get("parent")
client.close()
child = os.fork()
if child == 0:
    try:
        get("child")
    except ClientClosedError as error:
        say(error)
    client.close()
    sys.exit()
say(wait(child))
"""
    refused = "db.project.get: the client is closed: create another one"
    assert ends(script, oracle) == ([refused, "0"], "", 0)


@pytest.mark.parametrize("closes", ["parent", "child"])
def test_closing_in_one_process_leaves_the_others_client_open(oracle: Attentive, closes: str) -> None:
    script = f"""
get("parent-before")
read, write = os.pipe()
child = os.fork()
name = "parent" if child else "child"
if name == {closes!r}:
    client.close()
    os.write(write, b"closed")
else:
    os.read(read, 6)
    say(get(name).id)
    client.close()
if child:
    say(wait(child))
"""
    assert ends(script, oracle) == (["child" if closes == "parent" else "parent", "0"], "", 0)


def test_a_grandchild_has_connections_of_its_own_too(oracle: Attentive) -> None:
    script = """
get("parent")
child = os.fork()
if child == 0:
    get("child")
    grandchild = os.fork()
    if grandchild == 0:
        say(get("grandchild").id)
        sys.exit()
    say(wait(grandchild))
    sys.exit()
say(wait(child))
"""
    assert ends(script, oracle) == (["grandchild", "0", "0"], "", 0)
    assert connections(oracle) == {"parent": {1}, "child": {2}, "grandchild": {3}}


def test_a_cursor_goes_on_in_the_child_from_where_it_stands(oracle: Attentive) -> None:
    from support.oracle import SMALL, answer

    def pages(seen: object) -> object:
        first = "cursor=" not in seen.target  # type: ignore[attr-defined]
        items = [{**SMALL, "name": name} for name in ("ab" if first else "cd")]
        return answer({"items": items, "next_cursor": "second" if first else None})

    oracle.reply = pages  # type: ignore[assignment]
    script = """
cursor = client.db.project.list()
assert next(cursor).name == "a"
child = os.fork()
if child == 0:
    say([item.name for item in cursor])
    sys.exit()
assert wait(child) == 0
say([item.name for item in cursor])
"""
    assert ends(script, oracle) == (["['b', 'c', 'd']"] * 2, "", 0)


@pytest.mark.parametrize("used", [True, False], ids=["used before", "not used before"])
def test_a_pool_of_forked_workers_shares_a_global_client(oracle: Attentive, used: bool) -> None:
    script = f"""
import multiprocessing
def work(number):
    return get(f"worker-{{number}}").id
if {used}:
    get("parent")
context = multiprocessing.get_context("fork")
with context.Pool(3) as pool:
    assert pool.map(work, range(60), chunksize=1) == [f"worker-{{number}}" for number in range(60)]
    pool.close()
    pool.join()
say(get("parent").id)
"""
    assert ends(script, oracle) == (["parent"], "", 0)
    assert connections(oracle)["parent"].isdisjoint(connections(oracle)["worker"])
    assert len(connections(oracle)["worker"]) <= 3


def test_a_process_of_multiprocessing_ends_in_silence(oracle: Attentive) -> None:
    script = """
import multiprocessing
get("parent")
process = multiprocessing.get_context("fork").Process(target=lambda: say(get("child").id))
process.start()
process.join()
say(process.exitcode)
"""
    assert ends(script, oracle) == (["child", "0"], "", 0)


def test_a_child_that_is_interrupted_leaves_the_parents_call_alone(oracle: Attentive) -> None:
    script = """
import signal
child = os.fork()
if child == 0:
    say(os.getpid())
    try:
        get("slow-child")
    except KeyboardInterrupt:
        say("interrupted")
    sys.exit()
get("parent")
say(wait(child))
"""
    with Child(PRELUDE + script, oracle.url, options=FORKING) as process:
        child = int(process.line())
        until(lambda: any("slow-child" in seen.path for seen in oracle.seen))
        os.kill(child, 2)
        assert process.end() == ("interrupted\n0\n", "", 0)
        until(lambda: oracle.open_now == 0, SOON)


def test_a_fork_in_a_signals_handler_ends_the_call_in_the_child_and_not_in_the_parent(oracle: Attentive) -> None:
    program = """
import os, signal, sys
from infrai_async import Infrai, TransportError
client = Infrai("k", base_url=sys.argv[1])
children = []
signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
client.db.project.get("p")
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    print(client.db.project.get("brief").id, flush=True)
    os.waitpid(children[0], 0)
except TransportError as error:
    print("forked" in str(error), client.db.project.get("p").id, flush=True)
"""
    assert run(program, oracle.url, options=FORKING) == ("True p\nbrief\n", "", 0)
