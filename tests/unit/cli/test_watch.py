"""`pgbreaker watch`: a table on a terminal, lines into a pipe."""

import signal
import subprocess
import sys

from unit.cli.streaming import breaker, event, status, streaming
from unit.cli.terminal import on_terminal

WATCH = [sys.executable, "-m", "pgbreaker", "watch", "--url"]
MOVED = {
    "id": 7,
    "time": "2026-11-26T03:13:00.000Z",
    "kind": "transition",
    "breaker": "main/read",
    "breaker_status": breaker("open", "3 failures in a row"),
}


def test_into_a_pipe_goes_a_line_for_each_move():
    text = event("snapshot", status()) + event("transition", MOVED, 7)

    with streaming(text) as there:
        watching = subprocess.Popen(
            [*WATCH, there.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=10)

    assert lines == [
        "2026-11-26T03:12:00.000Z  main/read  ● closed  all is well\n",
        "2026-11-26T03:12:00.000Z  main/read  ○ open  3 failures in a row\n",
    ]
    assert (watching.returncode, said) == (0, "")


def test_on_a_terminal_is_a_table_that_moves_fits_and_is_gone_afterwards():
    texts = (event("snapshot", status()), event("transition", MOVED, 7))

    with (
        streaming(*texts) as there,
        on_terminal("watch", "--url", there.url) as terminal,
    ):
        terminal.until("● closed")
        there.seen = status("open", "3 failures in a row " + "x" * 200)
        terminal.until("○ open")
        terminal.resize(60, 10)
        terminal.until("x…", columns=60)
        lines = terminal.shown
        terminal.process.send_signal(signal.SIGINT)
        terminal.until("\x1b[?1049l")

        assert terminal.process.wait(10) == 0
    assert "\x1b[?1049h" in terminal.drawn
    assert terminal.drawn.count("\x1b[?25h") == 1  # the cursor is back
    assert all(len(line) <= 60 for line in lines)
    assert any(line.endswith("…") for line in lines)
    assert "Traceback" not in terminal.drawn


def test_a_daemon_that_goes_away_is_said_to_be_away():
    """What is shown is old from then on, and must not look alive."""
    text = event("snapshot", status())

    with (
        streaming(text, "") as there,
        on_terminal("watch", "--url", there.url) as terminal,
    ):
        terminal.until("CONNECTION LOST")

        assert "● closed" in "\n".join(terminal.shown)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(10) == 0


def test_no_daemon_is_one_line_and_leaves_the_terminal_alone():
    with on_terminal("watch", "--url", "http://127.0.0.1:1") as terminal:
        terminal.until("say where)")

        assert terminal.process.wait(10) == 69
    assert "\x1b[?1049h" not in terminal.drawn
