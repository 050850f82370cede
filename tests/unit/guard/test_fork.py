"""A process that forks, as servers with worker processes do."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PRELUDE = """
import json, os, sys, threading
from pgbreaker import *
from pgbreaker.guard.retry import Retrying
from unit.guard.driving import *

time = Time()

def in_child(look):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(look()).encode())
        except BaseException as error:
            os.write(write, json.dumps(repr(error)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        print(answer.read().decode())
    os.waitpid(child, 0)
"""


def run(script):
    """What a fork of a process tells that runs *script*."""
    import json

    path = os.pathsep.join([str(ROOT / "daemon"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRELUDE + textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_child_has_no_call_out():
    """They are its parent's, who will hear of them."""
    told = run("""
        breaker = make(time)
        succeed(breaker, 3)
        tickets = [breaker.acquire() for _ in range(5)]
        in_child(lambda: breaker.snapshot()["in_flight"])
    """)

    assert told == 0


def test_a_child_has_no_trial_out():
    told = run("""
        breaker = cooled(time)
        breaker.acquire()
        in_child(lambda: [breaker.snapshot()["in_flight"], breaker.acquire()[0]])
    """)

    assert told == [0, 1030.0]


def test_what_is_known_of_the_server_stays():
    told = run("""
        breaker = opened(time)
        time.passes(10.0)
        in_child(lambda: breaker.snapshot())
    """)

    assert told["state"] == "open"
    assert told["cause"]["code"] == "failure_run"
    assert told["retry_after_seconds"] == 20.0
    assert told["totals"]["failure"] == 5


def test_a_lock_that_was_held_is_usable_in_the_child():
    """A thread of the parent holds it at the moment of the fork, and is not there to
    give it back."""
    told = run("""
        held, done = threading.Event(), threading.Event()
        breaker = make(time)

        def hold():
            with breaker._lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()

        def look():
            fail(breaker, 5)
            return breaker.snapshot()["state"]

        in_child(look)
        done.set()
    """)

    assert told == "open"


def test_every_breaker_starts_anew_also_of_several_with_one_name():
    told = run("""
        breakers = [make(time, "orders") for _ in range(3)]
        tickets = [breaker.acquire() for breaker in breakers]
        in_child(lambda: [b.snapshot()["in_flight"] for b in breakers])
    """)

    assert told == [0, 0, 0]


def test_events_are_told_in_the_child():
    """Though a thread of the parent was telling one at the moment of the fork."""
    told = run("""
        held, done = threading.Event(), threading.Event()
        breaker, heard = make(time), []

        def listen(event):
            if threading.current_thread() is not threading.main_thread():
                held.set()
                done.wait()
            heard.append(event.breaker)

        subscribe(listen)
        thread = threading.Thread(target=fail, args=(make(time, "other"), 5))
        thread.start()
        held.wait()

        def look():
            fail(breaker, 5)
            return heard

        in_child(look)
        done.set()
    """)

    assert told == ["orders"]


def test_retries_may_be_asked_for_in_the_child():
    """Though a thread of the parent held the budget's lock."""
    told = run("""
        from pgbreaker.guard.outcomes import judge

        breaker = make(time)
        breaker.budget._lock.acquire()

        def look():
            import faulthandler
            faulthandler.dump_traceback_later(1, exit=True)
            rules = Retrying(3, 1.0, 1.0)
            judgement = judge(refused(), 0.0, None)
            return rules.wait(breaker, judgement, 1, time()) is not None

        in_child(look)
    """)

    assert told is True


@pytest.mark.parametrize("block", ["with", "pair"])
def test_a_call_that_the_child_ends_for_its_parent_counts_for_nothing_out(block):
    told = run(f"""
        breaker = make(time)
        if {block == "with"}:
            breaker.__enter__()
            end = lambda: breaker.__exit__(None, None, None)
        else:
            ticket = breaker.acquire()
            end = lambda: breaker.record(ticket)

        def look():
            end()
            return breaker.snapshot()["in_flight"]

        in_child(look)
    """)

    assert told == 0
