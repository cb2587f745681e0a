"""A real Ctrl-C, in a process of its own: the wait ends at once, the call is withdrawn, the client stays usable."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from support.oracle import SMALL, Reply, Seen, answer, refuse
from support.patience import LONG, SOON, until
from sync.children import Attentive, Child, by_name

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="signals as POSIX has them")

PRELUDE = """
import logging, signal, sys, threading, time
from infrai_async import Infrai, RetryPolicy

def until(condition):
    end = time.monotonic() + 25
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)

def say(what):
    print(what, flush=True)

def watch(condition):
    # Says when the main thread, which is about to wait, has come so far.
    threading.Thread(target=lambda: (until(condition), say("ready")), daemon=True).start()

class Logged(logging.Handler):
    def emit(self, record):
        say("ready")

client = Infrai("k", base_url=sys.argv[1], max_concurrency=int(sys.argv[2]))
get = client.db.project.get
say(get("first").id)
"""

EPILOGUE = """
except KeyboardInterrupt:
    say("interrupted")
until(lambda: client.stats.in_flight + client.stats.waiting == {held})
say("free")
{after}
say(get("next").id)
client.close()
"""


def script(waiting: str, *, held: int = 0, after: str = "") -> str:
    """A script that waits in ``waiting`` until it is interrupted, and then makes another call."""
    body = "".join(f"    {line}\n" for line in waiting.strip().splitlines())
    return f"{PRELUDE}\ntry:\n{body}{EPILOGUE.format(held=held, after=after)}"


def reply(seen: Seen) -> Reply:
    """Also lists two pages, of which the second never comes, and fails or asks for a pause on demand."""
    if "cursor=second" in seen.target:
        return answer({"items": [], "next_cursor": None}, delay=LONG)
    if seen.path.endswith("/project/list"):
        return answer({"items": [SMALL, SMALL], "next_cursor": "second"})
    if seen.path.endswith("/failing"):
        return refuse(503, retryable=True)
    if seen.path.endswith("/pausing"):
        return refuse(429, headers={"Retry-After": str(int(LONG))})
    return by_name(seen)


@pytest.fixture
def oracle() -> Iterator[Attentive]:
    with Attentive(reply) as oracle:
        yield oracle


def asked_for(oracle: Attentive, what: str) -> Callable[[], bool]:
    return lambda: any(what in seen.target for seen in oracle.seen)


IN_FLIGHT = 'get("slow")'
FOR_A_PLACE = """
threading.Thread(target=lambda: say(get("brief").id)).start()
until(lambda: client.stats.in_flight == 1)
watch(lambda: client.stats.waiting == 1)
get("never-sent")
"""
BETWEEN_ATTEMPTS = """
logging.getLogger("infrai_async").addHandler(Logged())
logging.getLogger("infrai_async").setLevel(logging.INFO)
patient = client.with_options(retry=RetryPolicy(initial=1e9, maximum=1e9), timeout=None)
patient.db.project.get("failing")
"""
FOR_THE_GATE = """
watch(lambda: client.stats.throttled_seconds > 0)
get("pausing")
"""
LISTING = """
for item in client.db.project.list():
    say(item.name)
"""
COLLECTING = "client.db.project.list().collect()"
SILENT_KEY = """
import asyncio
async def key():
    say("ready")
    await asyncio.sleep(60)
other = Infrai(key, base_url=sys.argv[1])
other.db.project.get("never-sent")
"""


@pytest.mark.parametrize(
    ("waiting", "asked", "before"),
    [
        pytest.param(IN_FLIGHT, "slow", [], id="a call in flight"),
        pytest.param(LISTING, "cursor=second", ["shop", "shop"], id="a loop over a list"),
        pytest.param(COLLECTING, "cursor=second", [], id="collect"),
    ],
)
def test_ctrl_c_ends_the_wait_for_an_answer_at_once_and_hangs_up(
    oracle: Attentive, waiting: str, asked: str, before: list[str]
) -> None:
    with Child(script(waiting), oracle.url, "64") as child:
        until(asked_for(oracle, asked))
        assert oracle.open_now == 1
        began = time.monotonic()
        child.signal()
        assert [child.line() for _ in range(1 + len(before))] == ["first", *before]
        assert child.line() == "interrupted"
        assert time.monotonic() - began < SOON
        until(lambda: oracle.hung_up == [1])
        until(lambda: oracle.open_now == 0)
        assert child.end() == ("free\nnext\n", "", 0)
    assert oracle.seen[-1].connection == 2


def test_ctrl_c_ends_the_wait_for_a_place_and_leaves_the_holder_alone(oracle: Attentive) -> None:
    with Child(script(FOR_A_PLACE, held=1), oracle.url, "1") as child:
        assert [child.line(), child.line()] == ["first", "ready"]
        child.signal()
        printed, complaints, code = child.end()
        assert (sorted(printed.split()), complaints, code) == (["brief", "free", "interrupted", "next"], "", 0)
    assert not asked_for(oracle, "never-sent")()
    assert oracle.hung_up == []


@pytest.mark.parametrize(
    "waiting",
    [
        pytest.param(BETWEEN_ATTEMPTS, id="between attempts"),
        pytest.param(SILENT_KEY, id="for the API key"),
    ],
)
def test_ctrl_c_ends_a_pause_at_once(oracle: Attentive, waiting: str) -> None:
    with Child(script(waiting), oracle.url, "64") as child:
        assert [child.line(), child.line()] == ["first", "ready"]
        began = time.monotonic()
        child.signal()
        assert child.line() == "interrupted"
        assert time.monotonic() - began < SOON
        assert child.end() == ("free\nnext\n", "", 0)


def test_ctrl_c_ends_the_wait_for_a_pause_that_the_service_asked_for(oracle: Attentive) -> None:
    # The pool's gate stays closed for LONG: the next call is one that gives up sooner, and says so.
    after = """
from infrai_async import RateLimitError
try:
    client.with_options(timeout=1).db.project.get("soon")
except RateLimitError:
    say("still throttled")
client = Infrai("k", base_url=sys.argv[1])
get = client.db.project.get
"""
    with Child(script(FOR_THE_GATE, after=after), oracle.url, "1") as child:
        assert [child.line(), child.line()] == ["first", "ready"]
        began = time.monotonic()
        child.signal()
        assert child.line() == "interrupted"
        assert time.monotonic() - began < SOON
        assert child.end() == ("free\nstill throttled\nnext\n", "", 0)


def test_an_interrupted_loop_over_a_list_goes_on_with_the_page_that_it_missed(oracle: Attentive) -> None:
    program = f"""{PRELUDE}
cursor = client.db.project.list()
try:
    for item in cursor:
        say(item.name)
except KeyboardInterrupt:
    say(cursor.next_cursor)
say([item.name for item in cursor])
client.close()
"""
    pages = iter([LONG, 0.0])

    def second_comes_later(seen: Seen) -> Reply:
        if "cursor=second" in seen.target:
            return answer({"items": [{**SMALL, "name": "last"}], "next_cursor": None}, delay=next(pages))
        return reply(seen)

    oracle.reply = second_comes_later
    with Child(program, oracle.url, "1") as child:
        until(asked_for(oracle, "cursor=second"))
        child.signal()
        assert child.end() == ("first\nshop\nshop\nsecond\n['last']\n", "", 0)


def test_ctrl_c_while_a_name_is_looked_up_says_nothing_when_the_answer_comes(oracle: Attentive) -> None:
    program = f"""{PRELUDE}
import socket
look_up, over = socket.getaddrinfo, threading.Event()
def slowly(*args, **kwargs):
    say("ready")
    over.wait(60)
    return look_up(*args, **kwargs)
socket.getaddrinfo = slowly
other = Infrai("k", base_url=sys.argv[1].replace("127.0.0.1", "localhost"))
threads = set(threading.enumerate())
try:
    other.db.project.get("never-sent")
except KeyboardInterrupt:
    say("interrupted")
other.close()
over.set()
until(lambda: set(threading.enumerate()) <= threads)
say(get("next").id)
"""
    with Child(program, oracle.url, "1") as child:
        assert [child.line(), child.line()] == ["first", "ready"]
        child.signal()
        assert child.end() == ("interrupted\nnext\n", "", 0)


@pytest.mark.parametrize("grace", [0.5, LONG])
def test_ctrl_c_ends_closing_at_once_and_with_it_the_calls_it_waited_for(oracle: Attentive, grace: float) -> None:
    program = f"""{PRELUDE}
from infrai_async import ClientClosedError, TransportError
def call():
    try:
        get("slow")
    except TransportError as error:
        say(f"{{type(error).__name__}} {{error.capability}} {{error.outcome}}")
thread = threading.Thread(target=call)
thread.start()
until(lambda: client.stats.in_flight == 1)
def closing():
    try:
        get("refused")
    except ClientClosedError:
        return True
watch(closing)
try:
    client.close(grace={grace})
except KeyboardInterrupt:
    say("interrupted")
thread.join()
client.close()
try:
    get("refused")
except ClientClosedError:
    say("closed")
say([thread.name for thread in threading.enumerate()])
"""
    with Child(program, oracle.url, "1") as child:
        assert child.line() == "first"
        until(asked_for(oracle, "slow"))
        assert child.line() == "ready"
        began = time.monotonic()
        child.signal()
        assert sorted([child.line(), child.line()]) == ["TransportError db.project.get maybe_applied", "interrupted"]
        assert time.monotonic() - began < SOON
        until(lambda: oracle.open_now == 0)
        assert child.end() == ("closed\n['MainThread']\n", "", 0)


def test_ctrl_c_that_nobody_catches_ends_the_process_as_it_would_any_other(oracle: Attentive) -> None:
    program = f"{PRELUDE}\nwith client:\n    get('slow')\n"
    with Child(program, oracle.url, "1") as child:
        until(asked_for(oracle, "slow"))
        began = time.monotonic()
        child.signal()
        printed, complaints, code = child.end()
    assert time.monotonic() - began < SOON
    assert (printed, code) == ("first\n", -signal.SIGINT)
    assert complaints.startswith("Traceback")
    assert complaints.endswith("\nKeyboardInterrupt\n")
    assert complaints.count("Traceback") == 1


def test_a_second_ctrl_c_while_closing_after_the_first_ends_that_too(oracle: Attentive) -> None:
    program = f"""{PRELUDE}
threading.Thread(target=lambda: get("slow-too"), daemon=True).start()
threading.excepthook = lambda args: say(args.exc_type.__name__)
def closing():
    return client._runner._closed
try:
    with client:
        try:
            get("slow")
        except KeyboardInterrupt:
            watch(closing)
            raise
except KeyboardInterrupt as error:
    say(type(error.__context__).__name__)
"""
    with Child(program, oracle.url, "2") as child:
        assert child.line() == "first"
        until(lambda: oracle.open_now == 2)
        child.signal()
        assert child.line() == "ready"
        began = time.monotonic()
        child.signal()
        printed, complaints, code = child.end()
    assert time.monotonic() - began < SOON
    assert (sorted(printed.split()), complaints, code) == (["KeyboardInterrupt", "TransportError"], "", 0)


@pytest.mark.parametrize("kind", ["Exception", "BaseException", "RuntimeError", "TimeoutError"])
def test_a_signal_handler_that_raises_ends_the_call_like_ctrl_c(oracle: Attentive, kind: str) -> None:
    program = f"""{PRELUDE}
class Enough({kind}):
    pass
def handler(number, frame):
    raise Enough
signal.signal(signal.SIGALRM, handler)
# Until then asyncio itself would swallow an OSError, such as TimeoutError: it drops those of writing to its own socket.
watch(lambda: client.stats.in_flight and sys._current_frames()[threading.main_thread().ident].f_code.co_name == "_wait")
try:
    get("slow")
except Enough as error:
    say(f"enough {{error.__context__}}")
until(lambda: client.stats.in_flight == 0)
say(get("next").id)
"""
    with Child(program, oracle.url, "1") as child:
        until(asked_for(oracle, "slow"))
        assert [child.line(), child.line()] == ["first", "ready"]
        child.signal(signal.SIGALRM)
        assert child.end() == ("enough None\nnext\n", "", 0)
    assert oracle.hung_up == [1]


def test_a_signal_handler_that_only_takes_note_disturbs_no_call(oracle: Attentive) -> None:
    program = f"{PRELUDE}\nsignal.signal(signal.SIGALRM, lambda *_: say('noted'))\nsay(get('brief').id)\n"
    with Child(program, oracle.url, "1") as child:
        until(asked_for(oracle, "brief"))
        child.signal(signal.SIGALRM)
        assert child.end() == ("first\nnoted\nbrief\n", "", 0)


def test_a_signal_handler_may_call_the_client_itself_in_the_middle_of_a_call(oracle: Attentive) -> None:
    program = f"""{PRELUDE}
signal.signal(signal.SIGALRM, lambda *_: say(get("from-the-handler").id))
say(get("brief").id)
"""
    with Child(program, oracle.url, "2") as child:
        until(asked_for(oracle, "brief"))
        child.signal(signal.SIGALRM)
        assert child.end() == ("first\nfrom-the-handler\nbrief\n", "", 0)


def test_ctrl_c_at_any_moment_of_a_call_leaves_the_client_whole(oracle: Attentive) -> None:
    # The moments come from a timer of a few microseconds to a millisecond, which is what a whole call takes.
    program = f"""{PRELUDE}
import random
class Enough(BaseException):
    pass
armed = False
def handler(number, frame):
    if armed:
        raise Enough
signal.signal(signal.SIGALRM, handler)
# Python itself loses what is raised in a finalizer, and its condition variables answer an ill-timed one with an error.
sys.unraisablehook = lambda lost: None if lost.exc_type is Enough else sys.__unraisablehook__(lost)
end, ended = time.monotonic() + 60, 0
while ended < 300:
    assert time.monotonic() < end, ended
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 1.5e-3))
        armed = True
        get("next")
        armed = False
    except Enough:
        armed = False
        ended += 1
signal.setitimer(signal.ITIMER_REAL, 0)
until(lambda: client.stats.in_flight + client.stats.waiting == 0)
assert client.stats.calls == client.stats.succeeded + client.stats.failed
say(get("next").id)
client.close()
"""
    with Child(program, oracle.url, "1") as child:
        assert child.end() == ("first\nnext\n", "", 0)


def test_ctrl_c_at_any_moment_of_the_first_call_leaves_the_client_usable(oracle: Attentive) -> None:
    program = f"""{PRELUDE}
import gc, random
class Enough(BaseException):
    pass
armed = False
def handler(number, frame):
    if armed:
        raise Enough
signal.signal(signal.SIGALRM, handler)
# Python itself loses what is raised in a finalizer, and its condition variables answer an ill-timed one with an error.
sys.unraisablehook = lambda lost: None if lost.exc_type is Enough else sys.__unraisablehook__(lost)
end, ended = time.monotonic() + 60, 0
while ended < 60:
    assert time.monotonic() < end, ended
    other = Infrai("k", base_url=sys.argv[1], max_concurrency=1)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(5e-6, 2e-3))
        armed = True
        other.db.project.get("other")
        armed = False
    except (Enough, RuntimeError) as error:
        armed = False
        ended += 1
        assert isinstance(error, Enough) or isinstance(error.__context__, Enough), repr(error)
    assert other.db.project.get("next").id == "next"
    other.close()
signal.setitimer(signal.ITIMER_REAL, 0)
client.close()
say([thread.name for thread in threading.enumerate() if thread.is_alive()])
"""
    with Child(program, oracle.url, "1") as child:
        assert child.end() == ("first\n['MainThread']\n", "", 0)
