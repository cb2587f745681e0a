"""OpenTelemetry: a span for each call, and metrics of the duration and cost of calls.

    from infrai_async import AsyncInfrai
    from infrai_async.ext.otel import OpenTelemetry

    client = AsyncInfrai(on_event=OpenTelemetry())

It requires the extra ``otel``, which installs the OpenTelemetry API only. The application provides the SDK and an
exporter; without them, nothing is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from infrai_async._observability.events import AttemptSent, CallFinished, CallStarted, Event, Retrying, Throttled
from infrai_async._version import __version__

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError:
    raise ImportError("infrai_async.ext.otel needs opentelemetry-api: pip install 'infrai-async[otel]'") from None

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class OpenTelemetry:
    """Listener for ``on_event=`` that creates one client span for each call, as a child of the current span.

    The span has the name of the capability and covers the whole call, with all attempts and waiting. Retries and
    throttling are recorded as span events. Besides those of the semantic conventions, the attributes are
    ``infrai.capability``, ``infrai.operation``, ``infrai.attempts``, ``infrai.request_id``, ``infrai.cost_usd`` and
    ``infrai.cancelled``. The metrics are the histogram ``infrai.client.call.duration`` (in seconds) and the counter
    ``infrai.client.cost`` (in US dollars), both by capability. One instance can serve any number of clients.

    Args:
        tracer_provider: provider of the tracer; the global one when omitted.
        meter_provider: provider of the meter; the global one when omitted.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer("infrai_async", __version__, tracer_provider)
        meter = metrics.get_meter("infrai_async", __version__, meter_provider)
        self._duration = meter.create_histogram("infrai.client.call.duration", "s", "How long calls took.")
        self._cost = meter.create_counter("infrai.client.cost", "{USD}", "What calls cost.")
        self._open: dict[int, Span] = {}

    def __call__(self, event: Event) -> None:
        """Record an event of a call.

        Args:
            event: the event, as the client passes it to ``on_event``.
        """
        if isinstance(event, CallStarted):
            self._open[event.call] = self._start(event)
        elif isinstance(event, CallFinished):
            self._measure(event)
            if (span := self._open.pop(event.call, None)) is not None:
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
    if (status := getattr(event.error, "status", None)) is not None:
        attributes["http.response.status_code"] = status
    span.set_attributes(attributes)
    if event.error is not None:
        span.set_status(trace.StatusCode.ERROR, str(event.error))
    span.end()


def _error_type(event: CallFinished) -> dict[str, str]:
    return {} if event.error is None else {"error.type": type(event.error).__name__}
