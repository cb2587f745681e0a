"""OpenTelemetry: a span for each call, and metrics of the duration and cost of calls.

    from infrai_async import AsyncInfrai
    from infrai_async.ext.otel import OpenTelemetry

    client = AsyncInfrai(on_event=OpenTelemetry())

It needs the extra ``otel``, which installs the API only. The application provides the SDK and an exporter; without
them the listener has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from infrai_async._observability.events import AttemptSent, CallFinished, CallStarted, Event, Retrying, Throttled
from infrai_async._version import __version__

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError:
    raise ImportError("infrai_async.ext.otel needs opentelemetry-api: pip install 'infrai-async[otel]'") from None

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# The bounds that the semantic conventions advise for durations of HTTP calls; those of the SDK suit milliseconds.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


class OpenTelemetry:
    """A listener for ``on_event=`` that creates a client span for each call, as a child of the current span.

    The span has the name of the capability. It covers the whole call, with every attempt and all waiting. Retries and
    throttling are recorded as span events. A call that raises an exception or is cancelled has the status ERROR and
    ``error.type``. In addition to the attributes of the semantic conventions, such as ``http.response.status_code`` of
    the last attempt, the span has ``infrai.capability``, ``infrai.operation``, ``infrai.attempts``,
    ``infrai.request_id``, ``infrai.cost_usd`` and ``infrai.cancelled``. The metrics are the histogram
    ``infrai.client.call.duration`` (in seconds, by capability and ``error.type``) and the counter
    ``infrai.client.cost`` (in USD, by capability). One instance can serve several clients.

    Args:
        tracer_provider: the provider of the tracer. The global provider by default.
        meter_provider: the provider of the meter. The global provider by default.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer("infrai_async", __version__, tracer_provider)
        meter = metrics.get_meter("infrai_async", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "infrai.client.call.duration", "s", "How long calls took.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._cost = meter.create_counter("infrai.client.cost", "{USD}", "What calls cost.")
        self._open: dict[int, Span] = {}

    def __call__(self, event: Event) -> None:
        """Record an event."""
        if isinstance(event, CallStarted):
            self._open[event.call] = self._start(event)
        elif isinstance(event, CallFinished):
            span = self._open.pop(event.call, None)
            try:
                self._measure(event)
            finally:  # a span is ended even if the application's meter fails
                if span is not None:
                    _finish(span, event)
        elif (span := self._open.get(event.call)) is not None:
            _note(span, event)

    def _start(self, event: CallStarted) -> Span:
        attributes: dict[str, AttributeValue] = {"infrai.capability": event.capability}
        if event.operation is not None:
            attributes["infrai.operation"] = event.operation
        return self._tracer.start_span(event.capability, kind=trace.SpanKind.CLIENT, attributes=attributes)

    def _measure(self, event: CallFinished) -> None:
        attributes = {"infrai.capability": event.capability}
        if event.cost_usd is not None and event.cost_usd > 0:
            self._cost.add(float(event.cost_usd), attributes)
        self._duration.record(event.seconds, attributes | _error_type(event))


def _note(span: Span, event: Event) -> None:
    match event:
        case AttemptSent():
            server = urlsplit(event.origin)
            span.set_attributes(
                {
                    "http.request.method": event.method,
                    "server.address": server.hostname or "",
                    "server.port": server.port or _DEFAULT_PORTS.get(server.scheme, 0),
                    "url.full": event.origin + event.path,
                }
            )
            if event.attempt > 1:
                span.set_attribute("http.request.resend_count", event.attempt - 1)
        case Retrying():
            span.add_event("retrying", {"infrai.reason": event.reason, "infrai.seconds": event.seconds})
        case Throttled():
            span.add_event("throttled", {"infrai.seconds": event.seconds})


def _finish(span: Span, event: CallFinished) -> None:
    attributes: dict[str, AttributeValue] = {"infrai.attempts": event.attempt, **_error_type(event)}
    if event.request_id is not None:
        attributes["infrai.request_id"] = event.request_id
    if event.cost_usd is not None:
        attributes["infrai.cost_usd"] = float(event.cost_usd)
    if event.cancelled:
        attributes["infrai.cancelled"] = True
    if event.status is not None:
        attributes["http.response.status_code"] = event.status
    span.set_attributes(attributes)
    if event.error is not None:
        span.set_status(trace.StatusCode.ERROR, str(event.error))
    elif event.cancelled:
        span.set_status(trace.StatusCode.ERROR, "the call was ended from outside")
    span.end()


def _error_type(event: CallFinished) -> dict[str, str]:
    return {} if event.error_type is None else {"error.type": event.error_type}
