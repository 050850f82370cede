"""Several questions in one statement, so that they cost one round trip."""

import json
from collections.abc import Mapping
from sys import intern
from typing import Any, Final

from pgbreaker.probes.probe import Rows


def statement(questions: Mapping[str, str]) -> str:
    """Ask all *questions*, name -> SELECT, in one statement of one row.

    Each column is the JSON text of one question's rows, NULL when it has none.
    """
    # On lines of its own, a comment at its end does not swallow what follows.
    columns = (
        f"(SELECT json_agg(q) FROM (\n{sql}\n) AS q)::text AS {name}"
        for name, sql in questions.items()
    )
    return "SELECT " + ",\n".join(columns)


def rows_of(answer: Mapping[str, Any], name: str) -> Rows:
    """Take the rows of question *name* out of the one row that came back."""
    text = answer[name]
    rows: Rows = [] if text is None else _DECODER.decode(text)
    return rows


def _with_shared_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {intern(name): value for name, value in pairs}


# Of a thousand targets each would have the names of its columns for itself.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_with_shared_names)
