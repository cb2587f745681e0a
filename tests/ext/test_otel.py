"""Spans and metrics, as an application's backend sees them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from support.oracle import SMALL, Oracle, Reply, answer, in_turn, refuse
from support.patience import complaints

from infrai_async import AsyncInfrai, Infrai, NotFoundError, RetryPolicy, TimeoutError
from infrai_async.ext.otel import OpenTelemetry

pytestmark = pytest.mark.anyio
KEY = "sk-a-key-that-nobody-may-see"
QUICK = RetryPolicy(initial=0.001, maximum=0.002)
GOOD = answer(SMALL)


@attrs.define
class Backend:
    """What an application sets up: providers, and exporters that keep what they are given."""

    spans: InMemorySpanExporter = attrs.field(factory=InMemorySpanExporter)
    provider: TracerProvider = attrs.field(factory=TracerProvider)
    reader: InMemoryMetricReader = attrs.field(factory=InMemoryMetricReader)
    meters: MeterProvider = attrs.field(init=False)
    listener: OpenTelemetry = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meters = MeterProvider([self.reader])
        self.listener = OpenTelemetry(self.provider, self.meters)

    def finished(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended; none is still open, and none shows a secret."""
        assert self.listener._open == {}
        spans = self.spans.get_finished_spans()
        assert KEY not in "".join(span.to_json() for span in spans)
        return spans

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in metrics}


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()
    yield backend
    backend.provider.shutdown()
    backend.meters.shutdown()


def client_of(oracle: Oracle, backend: Backend, **options: Any) -> AsyncInfrai:
    return AsyncInfrai(KEY, base_url=oracle.url, on_event=backend.listener, **{"retry": QUICK, **options})


async def test_a_call_is_a_client_span_with_the_conventions_attributes(backend: Backend) -> None:
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, backend) as client:
            await client.db.project.get("p")
    (span,) = backend.finished()
    assert (span.name, span.kind, span.status.status_code) == ("db.project.get", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "infrai_async"
    port = int(oracle.url.rpartition(":")[2])
    assert dict(span.attributes or {}) == {
        "infrai.capability": "db.project.get",
        "infrai.attempts": 1,
        "infrai.request_id": "r-1",
        "infrai.cost_usd": 0.001,
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "url.full": oracle.url + oracle.seen[0].path,
    }
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time < span.end_time


async def test_a_query_stays_out_of_the_address(backend: Backend) -> None:
    with Oracle(in_turn(answer({"items": [], "next_cursor": None}))) as oracle:
        async with client_of(oracle, backend) as client:
            await client.db.project.list(cursor="private").page()
    (span,) = backend.finished()
    assert "private" in oracle.seen[0].target
    assert "private" not in span.to_json()


async def test_the_span_is_a_child_of_the_one_that_the_call_is_made_in(backend: Backend) -> None:
    tracer = backend.provider.get_tracer("application")

    async def handle(name: str) -> None:
        with tracer.start_as_current_span(name):
            await asyncio.gather(client.db.project.get("p"), client.db.project.get("p"))

    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, backend) as client:
            await asyncio.gather(handle("one"), handle("two"))
            await client.db.project.get("p")
    parents = {span.context.span_id: span.name for span in backend.finished() if span.name in ("one", "two")}
    children = [span for span in backend.finished() if span.name == "db.project.get"]
    found = sorted(parents[span.parent.span_id] if span.parent else "" for span in children)
    assert found == ["", "one", "one", "two", "two"]


def test_the_span_of_a_blocking_call_is_a_child_too(backend: Backend) -> None:
    tracer = backend.provider.get_tracer("application")
    with Oracle(in_turn(GOOD)) as oracle, Infrai(KEY, base_url=oracle.url, on_event=backend.listener) as client:
        client.db.project.get("p")
        with tracer.start_as_current_span("job"):
            client.db.project.get("p")
    first, second, job = backend.finished()
    assert first.parent is None
    assert second.parent is not None
    assert second.parent.span_id == job.context.span_id


async def test_attempts_pauses_and_throttling_are_seen(backend: Backend) -> None:
    busy = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.02"})
    with Oracle(in_turn(refuse(500, "INTERNAL_ERROR"), busy, GOOD)) as oracle:
        async with client_of(oracle, backend) as client:
            await client.db.project.get("p")
    (span,) = backend.finished()
    retrying, throttled = span.events
    assert (retrying.name, throttled.name) == ("retrying", "throttled")
    assert dict(retrying.attributes or {})["infrai.reason"] == "INTERNAL_ERROR"
    assert dict(throttled.attributes or {}) == {"infrai.seconds": 0.02}
    assert span.attributes is not None
    assert (span.attributes["infrai.attempts"], span.attributes["http.request.resend_count"]) == (3, 2)
    assert span.status.status_code is StatusCode.UNSET


async def test_a_call_that_fails_sets_the_status_and_names_the_kind_of_error(backend: Backend) -> None:
    reply = refuse(404, "DB_PROJECT_NOT_FOUND", message=f"{KEY} owns no such project")
    with Oracle(in_turn(reply)) as oracle:
        async with client_of(oracle, backend) as client:
            with pytest.raises(NotFoundError) as caught:
                await client.db.project.get("p")
    (span,) = backend.finished()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == str(caught.value)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "NotFoundError"
    assert span.attributes["http.response.status_code"] == 404


async def test_a_call_that_is_cancelled_says_so_and_is_an_error(backend: Backend) -> None:
    with Oracle(in_turn(answer(SMALL, delay=30.0))) as oracle:
        async with client_of(oracle, backend) as client:
            with anyio.move_on_after(0.05):
                await client.db.project.get("p")
    (span,) = backend.finished()
    assert span.attributes is not None
    assert span.attributes["infrai.cancelled"] is True
    assert span.attributes["error.type"] == "CancelledError"
    assert "http.response.status_code" not in span.attributes
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description
    (point,) = backend.points()["infrai.client.call.duration"]
    assert dict(point.attributes) == {"infrai.capability": "db.project.get", "error.type": "CancelledError"}


def status_codes(backend: Backend) -> list[Any]:
    return [(span.attributes or {}).get("http.response.status_code") for span in backend.finished()]


BUSY = refuse(429, "RATE_LIMITED", headers={"Retry-After": "0.02"})
REPLIES = {
    "at once": ([GOOD], [200]),
    "after an error": ([refuse(500, "INTERNAL_ERROR"), GOOD], [200]),
    "after a pause": ([BUSY, GOOD], [200]),
    "after no response": ([Reply(drop=True), GOOD], [200]),
    "not found": ([refuse(404, "DB_PROJECT_NOT_FOUND")], [404]),
    "an error to the end": ([refuse(503, "UNAVAILABLE")], [503]),
    "no response": ([Reply(drop=True)], [None]),
    "an error, then no response": ([refuse(500, "INTERNAL_ERROR"), Reply(drop=True)], [None]),
    "cut off": ([answer(SMALL, cut=10)], [200]),
    "no JSON": ([Reply(body=b"<html>")], [200]),
}


@pytest.mark.parametrize(("replies", "expected"), REPLIES.values(), ids=REPLIES)
async def test_the_status_code_is_that_of_the_last_attempt(
    backend: Backend, replies: list[Reply], expected: list[int | None]
) -> None:
    with Oracle(in_turn(*replies)) as oracle:
        async with client_of(oracle, backend) as client:
            await asyncio.gather(client.db.project.get("p"), return_exceptions=True)
    assert status_codes(backend) == expected


async def test_each_page_has_a_status_code(backend: Backend) -> None:
    pages = [answer({"items": [SMALL], "next_cursor": "2"}), answer({"items": [SMALL], "next_cursor": None})]
    with Oracle(in_turn(*pages)) as oracle:
        async with client_of(oracle, backend) as client:
            assert len(await client.db.project.list(prefetch=1).collect()) == 2
    assert status_codes(backend) == [200, 200]


def test_a_blocking_call_has_a_status_code(backend: Backend) -> None:
    with (
        Oracle(in_turn(GOOD, refuse(404, "DB_PROJECT_NOT_FOUND"))) as oracle,
        Infrai(KEY, base_url=oracle.url, on_event=backend.listener) as client,
    ):
        client.db.project.get("p")
        with pytest.raises(NotFoundError):
            client.db.project.get("p")
    assert status_codes(backend) == [200, 404]


async def test_a_call_that_was_not_sent_has_no_status_code(backend: Backend) -> None:
    pause = refuse(429, "RATE_LIMITED", headers={"Retry-After": "30"})
    with Oracle(in_turn(pause)) as oracle:
        async with client_of(oracle, backend, timeout=5) as client:
            await asyncio.gather(client.db.project.get("p"), return_exceptions=True)
            await asyncio.gather(client.db.project.get("p"), return_exceptions=True)  # does not wait for the pause
    assert status_codes(backend) == [429, None]
    assert {span.status.status_code for span in backend.finished()} == {StatusCode.ERROR}


async def test_a_call_that_is_cancelled_between_attempts_is_an_error(backend: Backend) -> None:
    with Oracle(in_turn(refuse(500, "INTERNAL_ERROR"))) as oracle:
        slow = RetryPolicy(initial=30.0, maximum=30.0)
        async with client_of(oracle, backend, retry=slow) as client:
            with anyio.move_on_after(0.3):
                await client.db.project.get("p")
    (span,) = backend.finished()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert (span.attributes["error.type"], span.attributes["infrai.cancelled"]) == ("CancelledError", True)


async def test_a_meter_that_fails_leaves_no_span_open(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the meter's")

    monkeypatch.setattr(backend.listener, "_measure", fail)
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, backend) as client:
            assert (await client.db.project.get("p")).id == "p1"
    (span,) = backend.finished()
    assert span.status.status_code is StatusCode.UNSET


async def test_the_bounds_of_durations_are_those_of_the_conventions(backend: Backend) -> None:
    with Oracle(in_turn(GOOD)) as oracle:
        async with client_of(oracle, backend) as client:
            await client.db.project.get("p")
    (point,) = backend.points()["infrai.client.call.duration"]
    assert point.explicit_bounds[:4] == (0.005, 0.01, 0.025, 0.05)
    assert point.explicit_bounds[-1] == 10.0


async def test_no_span_stays_open_whatever_ends_a_call(backend: Backend) -> None:
    with Oracle(in_turn(GOOD, refuse(400, "VALIDATION_ERROR"), Reply(drop=True), answer(SMALL, delay=30.0))) as oracle:
        client = client_of(oracle, backend, timeout=0.3, retry=RetryPolicy.none(), max_concurrency=4)
        tasks = [asyncio.create_task(client.db.project.get("p")) for _ in range(20)]
        await asyncio.sleep(0.05)
        tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
        results += await asyncio.gather(client.db.project.get("p"), return_exceptions=True)
    assert any(isinstance(result, TimeoutError) for result in results)
    assert len(backend.finished()) == len(results) == 21


async def test_durations_and_costs_are_measured_by_capability(backend: Backend) -> None:
    with Oracle(in_turn(GOOD, GOOD, refuse(404, "DB_PROJECT_NOT_FOUND"))) as oracle:
        async with client_of(oracle, backend) as client:
            await client.db.project.get("p")
            await client.db.project.create(name="shop")
            with pytest.raises(NotFoundError):
                await client.db.project.get("p")
    points = backend.points()
    durations = {tuple(point.attributes.values()): point.count for point in points["infrai.client.call.duration"]}
    costs = {tuple(point.attributes.values()): point.value for point in points["infrai.client.cost"]}
    assert durations == {("db.project.get",): 1, ("db.project.create",): 1, ("db.project.get", "NotFoundError"): 1}
    assert costs == {("db.project.get",): 0.001, ("db.project.create",): 0.001}


async def test_the_operation_is_an_attribute(backend: Backend) -> None:
    with Oracle(lambda _: GOOD) as oracle:
        async with client_of(oracle, backend) as client:
            with client.operation("deploy-42"):
                await client.db.project.get("p1")
            await client.db.project.get("p1")
    inside, outside = (dict(span.attributes or {}) for span in backend.finished())
    [added] = inside.items() - outside.items()
    assert added == ("infrai.operation", "deploy-42")


async def test_calls_that_are_not_sampled_leave_nothing() -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    listener = OpenTelemetry(provider)
    with Oracle(in_turn(GOOD)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, on_event=listener) as client:
            await client.db.project.get("p")
    assert spans.get_finished_spans() == ()
    assert listener._open == {}
    provider.shutdown()


async def test_without_an_sdk_it_does_nothing() -> None:
    listener = OpenTelemetry()
    with Oracle(in_turn(GOOD)) as oracle:
        async with AsyncInfrai(KEY, base_url=oracle.url, on_event=listener) as client:
            assert (await client.db.project.get("p")).id == "p1"
    assert listener._open == {}


def test_without_the_extra_the_import_names_it() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import infrai_async.ext.otel"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    last = complaints(run.stderr).splitlines()[-1]
    assert last == "ImportError: infrai_async.ext.otel needs opentelemetry-api: pip install 'infrai-async[otel]'"


def test_the_client_loads_no_opentelemetry() -> None:
    code = "import sys; from infrai_async import *; import infrai_async.ext; print('opentelemetry' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (run.stdout, complaints(run.stderr)) == ("False\n", "")
