"""Pages for people: every target and breaker, and why. Plain HTML, no script."""

from collections.abc import Iterable
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{margin:0 auto;max-width:60rem;padding:1rem}
h1{font-size:1.2rem}h2{font-size:1rem;margin:1.5rem 0 .25rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25rem .75rem .25rem 0;vertical-align:top;
overflow-wrap:anywhere}
th{font-weight:600}
th,td:nth-child(2){white-space:nowrap}
.bad{font-weight:700;border-left:.4rem solid #c62828;padding-left:.4rem}
.meh{font-weight:700;border-left:.4rem solid #b26a00;padding-left:.4rem}
.good{border-left:.4rem solid #2e7d32;padding-left:.4rem}
footer{margin-top:2rem;font-size:.85rem}
"""

CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

_CLASS: Final = {
    **dict.fromkeys(("open", "forced_open", "down"), "bad"),
    **dict.fromkeys(("half_open", "degraded", "unknown", "disabled"), "meh"),
}


def page(status: dict[str, Any], version: str) -> str:
    """Write the page of *status*, as `Views.status` gives it."""
    targets = status["targets"]
    body = "\n".join(_target(target) for target in targets)
    footer = f"""
<footer>pgbreaker {escape(version)}, as of {escape(status["time"])}; reloads every 5 s.
<a href="metrics">metrics</a> <a href="api/v1/status">status</a>
<a href="runbooks/">runbooks</a></footer>"""
    again = '<meta http-equiv="refresh" content="5">'
    return _document(_verdict(targets), body + footer, head=again)


def contents(names: Iterable[str]) -> str:
    """Write the page that leads to the runbooks of *names*."""
    lines = [f'<li><a href="{escape(name)}">{escape(name)}</a></li>' for name in names]
    return _document("Runbooks", "<ul>" + "\n".join(lines) + "</ul>")


def _document(title: str, body: str, *, head: str = "") -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}<title>{escape(title)}</title>
<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
{body}
</body></html>
"""


def _verdict(targets: list[dict[str, Any]]) -> str:
    shut = [
        breaker
        for target in targets
        for breaker in target["breakers"]
        if breaker["state"] in ("open", "half_open", "forced_open")
    ]
    if len(shut) == 1:
        return str(shut[0]["reason"])
    if shut:
        return f"{len(shut)} breakers are not closed"
    troubled = [target["name"] for target in targets if target["state"] != "up"]
    if troubled:
        return f"no breaker is open, but not all is well: {', '.join(troubled)}"
    count = len(targets)
    return "1 target, healthy" if count == 1 else f"all {count} targets healthy"


def _target(target: dict[str, Any]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{escape(b["operation"])}</th>'
        f"<td>{_word(b['state'])}</td><td>{escape(b['reason'])}</td></tr>"
        for b in target["breakers"]
    )
    return f"""<section><h2>{escape(target["name"])}: {_word(target["state"])}</h2>
<p>{escape(target["reason"])}</p><table>{rows}</table></section>"""


def _word(state: str) -> str:
    return f'<span class="{_CLASS.get(state, "good")}">{escape(state.replace("_", "-"))}</span>'
