"""What is asked of the daemon when somebody decides, and what is shown of it."""

import getpass
import re
import shlex
import socket

import pytest

from pgbreaker.cli.daemon import Asked, Place
from pgbreaker.cli.orders import author, curl
from pgbreaker.core.secret import Secret
from unit.cli.conftest import answering
from unit.cli.streaming import breaker
from unit.cli.terminal import on_terminal

ME = f"{getpass.getuser()}@{socket.gethostname()}"
MINE = {
    "state": "forced_open",
    "reason": "moving the disk",
    "author": "me",
    "until": "2026-11-26T04:00:00.000Z",
}
WINDOW = {
    "id": 17,
    "targets": ["main"],
    "reason": "an upgrade",
    "author": "me",
    "starts": "2026-11-26T03:00:00.000Z",
    "ends": "2026-11-26T05:00:00.000Z",
}


@pytest.mark.parametrize(
    ("verb", "state", "effect"),
    [
        ("open", "open", "refuse every call"),
        ("close", "closed", "let every call pass, and go on counting"),
        ("disable", "disabled", "let every call pass, and count nothing"),
    ],
)
def test_a_breaker_is_taken_over_for_a_reason_and_a_time(verb, state, effect, command):
    with answering(200, breaker()) as there:
        done = command(
            *(verb, "main/read", "--reason", "moving the disk", "--for", "30m"),
            *("--url", there.url),
        )

    assert done.exit_code == 0, done.output
    assert there.line == "PUT /api/v1/breakers/main/read/override"
    assert there.body == {
        "state": state,
        "reason": "moving the disk",
        "for": "30m",
        "author": ME,
    }
    assert f"will {effect} for 30 min 0 s" in done.stderr
    assert done.stdout == "main/read is ● closed: all is well\n"


@pytest.mark.parametrize(
    ("typed", "code", "method"), [("n", 1, "GET"), ("y", 0, "PUT")]
)
def test_who_sits_at_a_terminal_is_asked_first(typed, code, method):
    words = ("open", "main/read", "--reason", "moving the disk", "--url")

    with answering(200, breaker()) as there, on_terminal(*words, there.url) as terminal:
        terminal.until("Do it? [y/N]")
        before = there.line
        terminal.type(f"{typed}\n")

        assert terminal.process.wait(10) == code
    assert "will refuse every call for 1 h 0 min" in terminal.drawn
    assert before.startswith("GET ")
    assert there.line.startswith(method)


def test_who_is_sure_is_not_asked():
    words = ("open", "main/read", "--reason", "moving the disk", "-y", "--url")

    with answering(200, breaker()) as there, on_terminal(*words, there.url) as terminal:
        terminal.until("main/read is ")

        assert terminal.process.wait(10) == 0
    assert "Do it?" not in terminal.drawn
    assert there.line.startswith("PUT ")


def test_what_would_be_typed_elsewhere_is_shown_and_can_be(command):
    reason = "it's the disk's \"last\" day"
    with answering(200, breaker()) as there:
        done = command("open", "main/read", "--reason", reason, "--url", there.url)

        (line,) = [x for x in done.stderr.splitlines() if x.startswith("  curl")]
        words = shlex.split(line)
    assert words[:3] == ["curl", "-X", "PUT"]
    assert words[-1] == f"{there.url}/api/v1/breakers/main/read/override"
    assert "it's the disk's" in words[words.index("-d") + 1]


def test_a_curl_line_has_the_socket_and_the_authority_and_no_secret(tmp_path):
    place = Place("unix:/run/pgbreaker/pgbreaker.sock", "its socket")
    asked = Asked(place, Secret("Bearer t0k3n"), tmp_path / "root.crt")

    words = shlex.split(curl(asked, "DELETE", "/x", {}))

    assert words[words.index("--unix-socket") + 1] == "/run/pgbreaker/pgbreaker.sock"
    assert words[words.index("--cacert") + 1] == str(tmp_path / "root.crt")
    assert words[-1] == "http://localhost/x"
    assert "t0k3n" not in " ".join(words)


def test_a_breaker_is_handed_back(command):
    with answering(200, {**breaker("forced_open"), "override": MINE}) as there:
        done = command(
            *("auto", "main/read", "--reason", "the disk is moved"), "--url", there.url
        )

    assert done.exit_code == 0
    assert there.line == "DELETE /api/v1/breakers/main/read/override"
    assert there.body == {"reason": "the disk is moved", "author": ME}


def test_a_breaker_that_decides_by_itself_is_left_alone(command):
    with answering(200, breaker()) as there:
        done = command("auto", "main/read", "--reason", "whatever", "--url", there.url)

    assert there.line == "GET /api/v1/breakers/main/read"
    assert done.stdout == "main/read decides by itself already: all is well\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("open", "main/read"), "Missing option '--reason'"),
        (("open", "main/read", "--reason", "x", "--for", "1"), "--for: "),
        (("open", "main", "--reason", "x"), "named like primary/read"),
        (("maintenance", "add", "main", "--reason", "x"), "--for TIME or --ends TIME"),
        (("maintenance", "add", "--reason", "x", "--for", "1h"), "TARGET"),
    ],
)
def test_what_is_missing_is_a_wrong_usage(words, says, command):
    done = command(*words, "--url", "http://127.0.0.1:1")

    assert done.exit_code == 2
    assert says in done.stderr


def test_what_cannot_be_written_down_is_a_failure_with_the_reason(command):
    problem = {"detail": "cannot be written down: the disk is full"}
    with answering(507, problem) as there:
        done = command(
            *("maintenance", "add", "main", "--reason", "an upgrade", "--for", "2h"),
            *("--url", there.url),
        )

    assert (done.exit_code, done.stderr) == (
        1,
        "cannot be written down: the disk is full\n",
    )


# -- Maintenance -------------------------------------------------------------------


def test_a_window_is_planned_with_a_length_or_an_end(command):
    asked = []
    for times in (
        ("--for", "2h"),
        ("--ends", "2026-11-26T05:00:00Z", "--starts", "2026-11-26T03:00:00Z"),
    ):
        with answering(200, WINDOW) as there:
            done = command(
                *("maintenance", "add", "main", "other", "--reason", "an upgrade"),
                *(*times, "--url", there.url),
            )
            asked.append(there.body)

    assert done.exit_code == 0
    assert there.line == "POST /api/v1/maintenance"
    common = {"targets": ["main", "other"], "reason": "an upgrade", "author": ME}
    assert asked == [
        {**common, "for": "2h"},
        {
            **common,
            "starts": "2026-11-26T03:00:00.000Z",
            "ends": "2026-11-26T05:00:00.000Z",
        },
    ]
    assert done.stdout == (
        "17: maintenance of main from 2026-11-26T03:00:00.000Z"
        " to 2026-11-26T05:00:00.000Z\n"
    )


def test_windows_are_a_table(command):
    with answering(200, {"windows": [WINDOW]}) as there:
        done = command("maintenance", "list", "--url", there.url)
    with answering(200, {"windows": []}) as there:
        none = command("maintenance", "list", "--url", there.url)

    head, row = done.stdout.splitlines()
    assert head.split() == ["ID", "TARGETS", "STARTS", "ENDS", "BY", "WHY"]
    assert re.split(r"\s{2,}", row)[0:2] == ["17", "main"]
    assert none.stdout == "no maintenance is planned\n"


def test_a_window_is_ended_by_its_id(command):
    with answering(200, WINDOW) as there:
        done = command("maintenance", "end", "17", "--url", there.url)

    assert there.line == "DELETE /api/v1/maintenance/17"
    assert there.body == {"author": ME}
    assert done.exit_code == 0


# -- reload ------------------------------------------------------------------------


def test_a_reload_prints_what_changed_or_that_nothing_did(command):
    done = {"changes": ["targets.main.interval: 1s -> 2s"], "later": ["http.listen"]}
    with answering(200, done) as there:
        some = command("reload", "--url", there.url)
    with answering(200, {"changes": [], "later": []}) as there:
        none = command("reload", "--url", there.url)

    assert (there.line, there.body) == ("POST /-/reload", {"author": ME})
    assert some.stdout == (
        "targets.main.interval: 1s -> 2s\nhttp.listen  (with the next start)\n"
    )
    assert (none.exit_code, none.stdout) == (0, "nothing changed\n")


def test_a_configuration_that_is_refused_is_78_with_every_line(command):
    problem = {"detail": "a.yaml:1:1: one\na.yaml:2:1: two"}
    with answering(422, problem) as there:
        done = command("reload", "--url", there.url)

    assert done.exit_code == 78
    assert done.stderr == "a.yaml:1:1: one\na.yaml:2:1: two\n"


def test_who_sits_here_is_a_user_and_a_machine():
    assert author() == ME
