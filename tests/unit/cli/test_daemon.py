"""Which daemon is asked, as whom, and what becomes of its answers."""

import base64
import os
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from pgbreaker.cli.daemon import USUAL, Place, credentials, find
from pgbreaker.cli.ending import EndError
from support.authority import Authority
from unit.cli.conftest import answering

CONFIG = "version: 1\ntargets:\n- name: main\n  dsn: postgresql://me@db/app\n"


@contextmanager
def listening(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()
        yield


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG + "http: {listen: 0.0.0.0:9555}\n", "utf-8")
    return path


# -- Finding -----------------------------------------------------------------------


def test_what_is_said_goes_before_what_is_found(config, tmp_path):
    env = {"PGBREAKER_URL": "https://there:1", "RUNTIME_DIRECTORY": str(tmp_path)}

    with listening(tmp_path / "pgbreaker.sock"):
        said = find("http://here:2/", config, env)
        by_env = find(None, config, env)
        del env["PGBREAKER_URL"]
        by_socket = find(None, config, env)
    by_config = find(None, config, {})
    usual = find(None, None, {})

    assert said == Place("http://here:2", "--url")
    assert by_env == Place("https://there:1", "PGBREAKER_URL")
    assert by_socket == Place(f"unix:{tmp_path}/pgbreaker.sock", "its socket")
    # What listens everywhere is asked here.
    assert by_config.url == "http://127.0.0.1:9555"
    assert str(config) in by_config.said_by
    assert usual == Place(USUAL, "the usual address")


def test_a_socket_that_nobody_listens_at_any_more_is_passed_over(tmp_path):
    path = tmp_path / "pgbreaker.sock"
    with listening(path):
        pass

    found = find(None, None, {"RUNTIME_DIRECTORY": str(tmp_path)})

    assert found.url == USUAL
    assert found.tried == (f"{path}: connection refused",)


def test_a_configuration_that_we_may_not_read_is_passed_over_and_told(
    command, tmp_path
):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG + "    password_file: /nowhere\n", "utf-8")

    done = command("status", "--config", str(path), PGBREAKER_URL="")

    assert done.exit_code == 69
    assert f"no daemon answers at {USUAL} (the usual address)" in done.stderr
    assert str(path) in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", ["targets: 7\n", "  - never: closed [\n"])
def test_the_daemon_is_found_though_its_file_was_spoilt_meanwhile(tmp_path, wrong):
    """It goes on by what it read before, and people ask it what is wrong."""
    path = tmp_path / "pgbreaker.yaml"
    http = "http:\n  # here\n\n  listen: 127.0.0.1:9555\n"
    path.write_text(http + CONFIG + wrong, "utf-8")

    found = find(None, path, {})

    assert found == Place("http://127.0.0.1:9555", f"http.listen in {path}")


def test_the_socket_of_the_configuration_is_asked_where_somebody_listens(tmp_path):
    path, there = tmp_path / "pgbreaker.yaml", tmp_path / "own.sock"
    path.write_text(CONFIG + f"http: {{socket: {there}}}\n", "utf-8")

    before = find(None, path, {})
    with listening(there):
        found = find(None, path, {})

    assert before.url == USUAL
    assert found.url == f"unix:{there}"


@pytest.mark.parametrize("url", ["there:9432", "ftp://there", "http://", "unix:"])
def test_what_is_no_address_is_a_wrong_usage(url):
    with pytest.raises(EndError, match="no address") as caught:
        find(url, None, {})

    assert caught.value.exit_code == 2


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(EndError, match="PGBREAKER_PASSWORD_FILE") as caught:
        find("http://me:hunter2@there", None, {})

    assert "hunter2" not in caught.value.message


def test_verbose_says_which_is_asked(command):
    with answering(200, {"status": "ok"}) as there:
        done = command("healthcheck", "-v", "--url", there.url)

    assert done.exit_code == 0
    assert done.stderr == f"asking {there.url} (--url)\n"
    assert done.stdout == "healthy\n"


# -- Who asks ----------------------------------------------------------------------


def test_nobody_in_particular_sends_no_credentials(command):
    with answering(200, {}) as there:
        command("healthcheck", "--url", there.url)

    assert "Authorization" not in there.headers


def test_a_user_comes_with_the_password_of_a_file(command, tmp_path):
    path = tmp_path / "password"
    path.write_text("hünter2\n", "utf-8")

    with answering(200, {}) as there:
        command(
            *("healthcheck", "--url", there.url),
            PGBREAKER_USER="me",
            PGBREAKER_PASSWORD_FILE=str(path),
        )

    scheme, _, told = there.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(told).decode() == "me:hünter2"


def test_a_token_goes_before_a_password(command):
    with answering(200, {}) as there:
        command(
            *("healthcheck", "--url", there.url),
            PGBREAKER_TOKEN="t0k3n",
            PGBREAKER_USER="me",
        )

    assert there.headers["Authorization"] == "Bearer t0k3n"


def test_credentials_are_never_shown():
    assert "t0k3n" not in repr(credentials({"PGBREAKER_TOKEN": "t0k3n"}))


def test_a_password_file_that_cannot_be_read_is_one_line(command):
    done = command("status", PGBREAKER_USER="me", PGBREAKER_PASSWORD_FILE="/nowhere")

    assert done.exit_code == 77
    assert done.stderr == (
        "PGBREAKER_PASSWORD_FILE cannot be read: no such file or directory\n"
    )


# -- Answers -----------------------------------------------------------------------

PROBLEM = {"title": "no", "status": 0, "detail": "what is wrong"}


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, 1, "what is wrong"),
        (401, 77, "not logged in: set PGBREAKER_USER"),
        (403, 77, "not allowed: what is wrong"),
        (404, 1, "what is wrong"),
        (409, 1, "what is wrong"),
        (429, 75, "not now: what is wrong (try again in 7 s)"),
        (500, 1, "what is wrong"),
        (503, 75, "not now: what is wrong (try again in 7 s)"),
        (507, 1, "what is wrong"),
    ],
)
def test_a_refusal_is_one_line_and_its_code(status, code, says, command):
    with answering(status, PROBLEM, Retry_After="7") as there:
        done = command("status", "--url", there.url)

    assert done.exit_code == code
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_every_field_that_is_wrong_is_named(command):
    errors = [
        {"field": "reason", "detail": "too short"},
        {"field": "for", "detail": "no"},
    ]

    with answering(422, {**PROBLEM, "errors": errors}) as there:
        done = command("status", "--url", there.url)

    assert done.stderr == "reason: too short\nfor: no\n"


@pytest.mark.parametrize(
    "raw", [b"<html>", b"", b'{"a": ', b"[]", b'{"status": "success"}']
)
def test_who_answers_something_else_is_no_daemon(raw, command):
    with answering(200, raw=raw) as there:
        done = command("status", "--url", there.url)

    assert done.exit_code == 69
    assert done.stderr == f"what answers at {there.url} (--url) is no pgbreaker\n"


def test_who_does_not_speak_http_is_no_daemon(command):
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]

        def greet() -> None:
            peer, _ = there.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"220 mail.example.org ESMTP\r\n")

        greeting = threading.Thread(target=greet)
        greeting.start()
        done = command("status", "--url", f"http://127.0.0.1:{port}")
        greeting.join()

    assert done.exit_code == 69
    assert done.stderr.count("\n") == 1


def test_a_certificate_is_trusted_by_the_authority_that_is_named(command, tmp_path):
    authority = Authority.found(tmp_path / "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    home = authority.home
    context.load_cert_chain(home / "server.crt", home / "server.key")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    def serve(there: socket.socket, times: int) -> None:
        for _ in range(times):
            peer, _ = there.accept()
            try:
                with context.wrap_socket(peer, server_side=True) as safe:
                    safe.recv(4000)
                    safe.sendall(answer)
            except (ssl.SSLError, OSError):
                peer.close()  # who does not trust us hangs up

    with socket.create_server(("127.0.0.1", 0)) as there:
        serving = threading.Thread(target=serve, args=(there, 3))
        serving.start()
        port, ca = there.getsockname()[1], ("--ca", str(authority.root))
        url, other = f"https://localhost:{port}", f"https://127.0.0.1:{port}"
        good = command("healthcheck", "--url", url, *ca)
        bad = command("healthcheck", "--url", url)
        named = command("healthcheck", "--url", other, *ca)
        serving.join()

    assert good.exit_code == 0, good.output
    assert (bad.exit_code, named.exit_code) == (69, 69)
    assert bad.stderr.startswith(
        f"the certificate of {url} (--url) is not trusted: unable to get local issuer"
        " certificate ("
    )
    assert "--ca FILE, or PGBREAKER_CA" in bad.stderr
    assert named.stderr == (
        f"the certificate of {other} (--url) is not trusted: IP address mismatch,"
        " certificate is not valid for '127.0.0.1' (say --url with a name that the"
        " certificate has)\n"
    )


def test_who_asks_a_plain_daemon_by_https_is_told_so(command):
    with answering(200, {}) as there:
        url = there.url.replace("http:", "https:")
        done = command("healthcheck", "--url", url)

    assert done.exit_code == 69
    assert done.stderr.startswith(f"what answers at {url} (--url) does not speak TLS")


def test_a_unix_socket_is_spoken_to(command, tmp_path):
    path = tmp_path / "own.sock"
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()

        def serve() -> None:
            peer, _ = there.accept()
            with peer:
                peer.recv(4000)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        serving = threading.Thread(target=serve)
        serving.start()
        done = command("healthcheck", "--url", f"unix:{path}")
        serving.join()

    assert (done.exit_code, done.stdout) == (0, "healthy\n")
    assert os.path.exists(path)
