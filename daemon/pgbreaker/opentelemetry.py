"""OpenTelemetry: what breakers do, as events of the span in which it happens.

Only what is rare: transitions, trials and retries. A span or a metric for each call costs
ten times what the guard does.
"""

from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.util.types import AttributeValue

from pgbreaker.core.states import Transition
from pgbreaker.guard.events import Event, Retry, Trial, subscribe


def install(provider: trace.TracerProvider | None = None) -> Callable[[], None]:
    """Write every event of every breaker into the trace, from now on.

    Args:
        provider: Who makes a span for what happens outside of any. None: the global
            one.

    Returns:
        What ends it when called.
    """
    tracer = trace.get_tracer("pgbreaker", tracer_provider=provider)

    def write(event: Event) -> None:
        name, attributes = describe(event)
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(name, attributes)
        elif isinstance(event, Transition):
            with tracer.start_as_current_span(name, attributes=attributes):
                pass

    return subscribe(write)


def describe(event: Event) -> tuple[str, Mapping[str, AttributeValue]]:
    """Name and attributes of an event; the daemon's traces have the same."""
    about: dict[str, AttributeValue] = {"pgbreaker.breaker": event.breaker}
    match event:
        case Transition():
            return "pgbreaker.transition", about | {
                "pgbreaker.from": event.before.value,
                "pgbreaker.to": event.after.value,
                "pgbreaker.cause": event.cause.value,
                "pgbreaker.reason": event.reason,
            }
        case Trial():
            return "pgbreaker.trial", about | {
                "pgbreaker.outcome": event.outcome.value,
                "pgbreaker.took_seconds": event.took,
            }
        case Retry():
            return "pgbreaker.retry", about | {
                "pgbreaker.retry": event.number,
                "pgbreaker.wait_seconds": event.wait,
                "pgbreaker.reason": event.reason,
            }
