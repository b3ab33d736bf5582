"""Drives the OpenTelemetry Python SDK as an application would, step by step on command.

Usage: otel_sdk.py grpc|http ENDPOINT cumulative|delta

Reads one command a line from standard input and answers each with one line of JSON:

  step N       records the values of step N on every kind of instrument, ends a small trace, and exports
  exponential  records on a histogram that exports exponential buckets, and exports
  end          shuts the SDK down and exits

What a step records is fixed, so that the test can say what must be stored.
"""

import json
import logging
import sys

from opentelemetry import trace
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableGauge,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

protocol, endpoint, temporality = sys.argv[1:4]
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    trace_args = metric_args = {"endpoint": endpoint, "insecure": True, "timeout": 60}
else:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    trace_args = {"endpoint": endpoint + "/v1/traces", "timeout": 60}
    metric_args = {"endpoint": endpoint + "/v1/metrics", "timeout": 60}


class Heard(logging.Handler):
    """What the SDK complained about since the last command."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


heard = Heard()
logging.getLogger().addHandler(heard)

delta = AggregationTemporality.DELTA if temporality == "delta" else AggregationTemporality.CUMULATIVE
kinds = (Counter, UpDownCounter, Histogram, ObservableCounter, ObservableUpDownCounter, ObservableGauge)
service = f"sdk-{protocol}-{temporality}"
resource = Resource.create({"service.name": service, "service.namespace": "tests", "service.instance.id": "one"})
exporter = OTLPMetricExporter(preferred_temporality={kind: delta for kind in kinds}, **metric_args)
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=1e9, export_timeout_millis=120_000)
exponential = View(instrument_name="sdk.exponential", aggregation=ExponentialBucketHistogramAggregation())
meters = MeterProvider(metric_readers=[reader], resource=resource, views=[exponential])
meter = meters.get_meter("rootline.tests", "1.0")
tracers = TracerProvider(resource=resource)
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(**trace_args), schedule_delay_millis=1_000_000))
tracer = tracers.get_tracer("rootline.tests", "1.0")

step = 0
counter = meter.create_counter("sdk.counter", unit="1")
up_down = meter.create_up_down_counter("sdk.updown", unit="By")
histogram = meter.create_histogram("sdk.histogram", unit="s")
gauge = meter.create_gauge("sdk.gauge", unit="1")
meter.create_observable_counter("sdk.observed.counter", [lambda _: [Observation(100 * step, {"k": "v"})]])
meter.create_observable_up_down_counter("sdk.observed.updown", [lambda _: [Observation(7 - step, {"k": "v"})]])
meter.create_observable_gauge("sdk.observed.gauge", [lambda _: [Observation(0.5 + step, {"k": "v"})]])


def record(n):
    global step
    step = n
    counter.add(n, {"k": "v"})
    up_down.add(-n if n % 2 else n, {"k": "v"})
    for value in (0.001, 0.3, 40.0):
        histogram.record(value * n, {"k": "v"})
    gauge.set(10.25 * n, {"k": "v"})
    with tracer.start_as_current_span(f"step {n}", kind=SpanKind.SERVER) as root:
        root.set_attributes(
            {"text": "straße", "whole": -(2**62), "share": 0.1, "flag": True, "list": ["a", "b"], "step": n}
        )
        first = root.get_span_context()
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, links=[Link(first, {"why": "test"})]) as child:
            child.add_event("happened", {"at": n})
            child.set_status(Status(StatusCode.ERROR, "told to fail"))
    return trace.format_trace_id(first.trace_id)


def answer(trace_id):
    spans = tracers.force_flush(120_000)
    metrics = meters.force_flush(120_000)
    said, heard.messages = heard.messages, []
    print(json.dumps({"trace_id": trace_id, "spans": spans, "metrics": metrics, "heard": said}), flush=True)


for line in sys.stdin:
    command = line.split()
    if command[0] == "step":
        answer(record(int(command[1])))
    elif command[0] == "exponential":
        meter.create_histogram("sdk.exponential").record(3.0)
        answer(None)
    else:
        break
tracers.shutdown()
meters.shutdown()
