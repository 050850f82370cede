"""The library's rules as a table, for the documentation.

``python -m pgbreaker.guard.reference`` prints what config/README.md holds.
"""

import re
import sys
from dataclasses import fields

from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig


def reference() -> str:
    """A Markdown table of every rule, made of the docstring and the defaults."""
    said = _said(PostgreSQLCircuitBreakerConfig.__doc__ or "")
    rows = [
        f"| `{field.name}` | `{field.default!r}` | {said[field.name]} |"
        for field in fields(PostgreSQLCircuitBreakerConfig)
    ]
    return "\n".join(["| rule | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _said(docstring: str) -> dict[str, str]:
    """What the section on attributes says of each."""
    section = docstring.partition("Attributes:\n")[2]
    entries = re.split(r"^ {8}(\w+): ", section, flags=re.MULTILINE)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return {name: " ".join(text.split()) for name, text in pairs}


if __name__ == "__main__":
    sys.stdout.write(reference())
