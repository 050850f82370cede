"""What a recording must not hold, whoever said it: where targets are and who asks there,
passwords, the questions of users.

A server says some of it: ``password authentication failed for user "…1"``. Each word has
a number, so that two hosts by which slots are called stay two.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.postgres.dsn import password_in, resolve

_MARK: Final = "…"
_KEPT: Final = 2048  # texts; most are the same again and again
_TELLING: Final = 24  # characters of a question by which it is known, though it is cut

Discreet = Callable[[str], str]
"""Takes a text; returns it without what must not be seen."""


def discreet(targets: Iterable[TargetPlan]) -> Discreet:
    """Find out what must not be seen of *targets*; reads their password files."""
    plans = tuple(targets)
    secret = dict.fromkeys(text for plan in plans for text in _secrets(plan) if text)
    named = dict.fromkeys(text for plan in plans for text in _names(plan) if text)
    asked = [query for plan in plans for query in _queries(plan)]
    number = {text: n for n, text in enumerate((*secret, *named), 1)}
    rules = {text: _as_word(text) for text in named}
    rules |= {text: re.escape(text) for text in secret}  # which is more than a word
    # The longest first, or of a word that begins another the rest would be left.
    words = sorted(rules, key=len, reverse=True)

    @lru_cache(maxsize=_KEPT)
    def told(text: str) -> str:
        # Of a thousand targets one pattern of all words would take a millisecond.
        found = [*asked, *(rules[word] for word in words if word in text)]
        if not found:
            return text
        return re.sub(
            "|".join(found),
            lambda what: f"{_MARK}{number.get(what[0], '')}",
            text,
            flags=re.DOTALL,
        )

    return told


def _as_word(text: str) -> str:
    """A user called *me* is not what *time* is about."""
    before = r"(?<!\w)" if re.match(r"\w", text) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", text) else ""
    return f"{before}{re.escape(text)}{after}"


def _addresses(plan: TargetPlan) -> Iterator[tuple[Secret, Path | None]]:
    yield plan.dsn, plan.password_file
    if plan.pause is not None:
        yield plan.pause.address, plan.pause.password_file
    for probe in plan.probes.values():
        if probe.address is not None:
            yield probe.address, probe.password_file


def _secrets(plan: TargetPlan) -> Iterator[str]:
    for address, file in _addresses(plan):
        text = address.reveal()
        # What is not there, or cannot be read, was not said to anybody either.
        with suppress(OSError, ValueError):
            yield password_in(file) or ""
        with suppress(OSError, ValueError):
            there = resolve(text)
            yield "" if there.password is None else there.password.reveal()
            yield there.tls.password or ""
        with suppress(ValueError):
            written = urlsplit(text).password or ""
            yield from (written, unquote(written))


def _names(plan: TargetPlan) -> Iterator[str]:
    for address, _ in _addresses(plan):
        text = address.reveal()
        with suppress(OSError, ValueError):
            there = resolve(text)
            yield from (there.host, there.user)
        with suppress(ValueError):
            parts = urlsplit(text)
            written = (parts.hostname or "", parts.username or "")
            yield from (*written, *map(unquote, written))


def _queries(plan: TargetPlan) -> Iterator[str]:
    """Patterns of the user's own questions, from a beginning on that tells."""
    for probe in plan.probes.values():
        words = (probe.query or "").split()
        if not words:
            continue
        count, length = 0, 0
        while count < len(words) and length < _TELLING:
            length += len(words[count])
            count += 1
        rest = ".*" if count < len(words) else ""
        yield r"\s+".join(map(re.escape, words[:count])) + rest
