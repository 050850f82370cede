"""What is recorded: its numbers, over several processes, and that no traffic is none.

Rates are rounded: Prometheus 3 leaves out the left end of a range, and floats are floats.
"""

from collections.abc import Iterator
from typing import Any, Final

_BAD: Final = ("failure", "cut", "rejected")


def _series(name: str, values: str) -> dict[str, str]:
    return {"series": name, "values": values}


def _expects(at: str, expr: str, labels: str, value: float | None) -> dict[str, Any]:
    samples = [] if value is None else [{"labels": labels, "value": value}]
    return {"eval_time": at, "expr": expr, "exp_samples": samples}


def _calls(breaker: str, outcome: str, instance: str) -> str:
    return (
        f'pgbreaker_calls_total{{job="shop", instance="{instance}",'
        f' breaker="{breaker}", outcome="{outcome}"}}'
    )


def _turning(rate: float, step: int, begins: int, after: int) -> Iterator[Any]:
    """Two processes; all calls of theirs are good, and then all are bad, by thirds."""
    good, bad = begins // step, after // step
    for instance, share in (("one", 0.25), ("two", 0.75)):
        grows = rate * share * step
        success = f"0+{grows:g}x{good} {grows * good:g}x{bad}"
        yield _series(_calls("a", "success", instance), success)
        for outcome in _BAD:
            values = f"0x{good} {grows / 4:g}+{grows / 4:g}x{bad}"
            yield _series(_calls("a", outcome, instance), values)
    yield _series(_calls("idle", "success", "one"), f"7x{good + bad}")
    yield _series(_calls("idle", "failure", "one"), f"0x{good + bad}")


def _windows(title: str, step: int, begins: int, **windows: int) -> dict[str, Any]:
    """Half a window after the turn, three of seven calls in it are bad ones: those
    make up three quarters of what the good ones were."""
    expected = []
    for name, length in windows.items():
        record = f"breaker:pgbreaker_calls:error_ratio_rate{name.removeprefix('of_')}"
        at = f"{begins + length // 2}s"
        expr = f'round({record}{{breaker="a"}}, 0.05)'
        expected.append(_expects(at, expr, '{job="shop", breaker="a"}', 0.45))
        expected.append(_expects(at, f'{record}{{breaker="idle"}}', "", None))
    return {
        "name": f"error ratios of {title}",
        "interval": f"{step}s",
        "input_series": list(_turning(0.4, step, begins, max(windows.values()))),
        "promql_expr_test": expected,
    }


def _failed(title: str, record: str, step: str, at: str, count: int) -> dict[str, Any]:
    """Four in a step, of two processes."""
    expr = f"round(breaker:pgbreaker_calls:{record}, 10)"
    return {
        "name": f"failed calls within {title}",
        "interval": step,
        "input_series": [
            _series(_calls("a", "failure", "one"), "0+1x400"),
            _series(_calls("a", "cut", "two"), "0+1x400"),
            _series(_calls("a", "rejected", "two"), "0+2x400"),
        ],
        "promql_expr_test": [_expects(at, expr, '{job="shop", breaker="a"}', count)],
    }


def _of_instances(name: str, labels: str, one: str, two: str) -> list[dict[str, str]]:
    return [
        _series(f'{name}{{instance="one", {labels}}}', one),
        _series(f'{name}{{instance="two", {labels}}}', two),
    ]


def _p95(record: str, name: str, owner: str, more: str = "") -> dict[str, Any]:
    """Nine tenths of one process and none of the other, which has as many: 0.25 s is
    the 45th percentile of both, and 95 % lie at ten elevenths from there to 0.5 s."""
    bucket = f"{name}_bucket"
    return {
        "name": record,
        "interval": "15s",
        "input_series": [
            *_of_instances(bucket, f'{owner}{more}, le="0.25"', "0+9x40", "0x40"),
            *_of_instances(bucket, f'{owner}{more}, le="0.5"', "0+10x40", "0+10x40"),
            *_of_instances(bucket, f'{owner}{more}, le="+Inf"', "0+10x40", "0+10x40"),
        ],
        "promql_expr_test": [
            _expects("10m", f"round({record}, 0.001)", f"{{{owner}}}", 0.477)
        ],
    }


_POOL: Final = 'job="shop", breaker="a"'
_ENDLESS: Final = 'job="shop", breaker="endless"'

EVERY_15S: Final[list[dict[str, Any]]] = [
    _windows("minutes", 15, 600, of_5m=300),
    {
        "name": "calls of two processes, and what share of them fails",
        "interval": "15s",
        "input_series": [
            _series(_calls("a", "success", "one"), "0+3x40"),
            _series(_calls("a", "success", "two"), "0+3x40"),
            _series(_calls("a", "failure", "one"), "0+3x40"),
            _series(_calls("a", "cut", "two"), "0+6x40"),
            _series(_calls("a", "rejected", "two"), "0+60x40"),
            # For a minute alone.
            _series(_calls("new", "success", "one"), "0x36 3+3x3"),
            _series(_calls("idle", "success", "one"), "5x40"),
            _series(_calls("idle", "failure", "one"), "0x40"),
        ],
        "promql_expr_test": [
            _expects(
                "10m",
                'round(breaker:pgbreaker_calls:rate2m{breaker="a"}, 0.001)',
                f"{{{_POOL}}}",
                1,
            ),
            _expects(
                "10m",
                'round(breaker:pgbreaker_calls:rate2m{breaker="new"}, 0.05)',
                '{job="shop", breaker="new"}',
                0.1,
            ),
            _expects(
                "10m",
                "round(breaker:pgbreaker_calls:failure_ratio_rate2m"
                '{breaker=~"a|idle"}, 0.001)',
                f"{{{_POOL}}}",
                0.6,
            ),
            _expects(
                "10m",
                'round(breaker:pgbreaker_calls:error_increase6h{breaker="a"}, 100)',
                f"{{{_POOL}}}",
                2800,
            ),
        ],
    },
    _p95(
        "breaker:pgbreaker_call_duration_seconds:p95_rate5m",
        "pgbreaker_call_duration_seconds",
        'job="shop", breaker="a"',
    ),
    _p95(
        "target:pgbreaker_ping_duration_seconds:p95_rate5m",
        "pgbreaker_probe_duration_seconds",
        'job="pgbreaker", target="a"',
        ', probe="ping"',
    ),
    _p95(
        "target:pgbreaker_canary_duration_seconds:p95_rate5m",
        "pgbreaker_canary_duration_seconds",
        'job="pgbreaker", target="a"',
    ),
    {
        "name": "the pool of the fullest process, and one without a limit",
        "interval": "15s",
        "input_series": [
            *_of_instances(
                "pgbreaker_pool_connections", f'{_POOL}, state="used"', "0x9", "1x9"
            ),
            *_of_instances(
                "pgbreaker_pool_connections", f'{_POOL}, state="idle"', "1x9", "0x9"
            ),
            *_of_instances("pgbreaker_pool_max_connections", _POOL, "4x9", "1x9"),
            *_of_instances(
                "pgbreaker_pool_connections", f'{_ENDLESS}, state="used"', "3x9", "0x9"
            ),
            *_of_instances("pgbreaker_pool_max_connections", _ENDLESS, "0x9", "0x9"),
        ],
        "promql_expr_test": [
            _expects(
                "2m",
                "breaker:pgbreaker_pool_connections:used_ratio",
                f"breaker:pgbreaker_pool_connections:used_ratio{{{_POOL}}}",
                1,
            )
        ],
    },
]

EVERY_100S: Final[list[dict[str, Any]]] = [
    _windows("hours", 100, 25200, of_30m=1800, of_1h=3600, of_2h=7200, of_6h=21600),
    _failed("six hours", "error_increase6h", "100s", "10h", 860),
]

EVERY_30M: Final[list[dict[str, Any]]] = [
    _windows("days", 1800, 280_800, of_1d=86400, of_3d=259_200),
    _failed("three days", "error_increase3d", "30m", "96h", 580),
]
