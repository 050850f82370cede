"""The doors: who may come in, by which way, how much at once, and what they may do.

A connection is one of `lines`; `doorman` stands before every address; `logins` finds out
who asks, by the web configuration that `present` keeps.
"""

from pgbreaker.web.doors.passwords import hash_password
from pgbreaker.web.doors.reading import read_web_config
from pgbreaker.web.doors.tokens import CSRF_FIELD, csrf_token, hash_token, new_token

__all__ = [
    "CSRF_FIELD",
    "csrf_token",
    "hash_password",
    "hash_token",
    "new_token",
    "read_web_config",
]
