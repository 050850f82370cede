"""What is said to a pgbouncer's console, before it is."""

from pgbreaker.core.secret import Secret
from pgbreaker.postgres.console import Console, named


def test_a_name_cannot_say_more_than_a_name():
    assert named("app") == '"app"'
    assert named('a"; SHUTDOWN; --') == '"a""; SHUTDOWN; --"'


def test_a_console_is_told_from_another_without_its_password():
    console = Console(Secret("postgresql://boss:hunter2@db1:6432/pgbouncer"), None)

    assert console.place == "db1:6432"
