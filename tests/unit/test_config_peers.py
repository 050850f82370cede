"""The block ``peers``: what is taken, and what of it is shown."""

import socket
from pathlib import Path

import pytest

from pgbreaker.config import parse, shown, written
from pgbreaker.config.peers import shown_url
from pgbreaker.core.plan import EnginePlan, PeersPlan
from pgbreaker.core.secret import Secret
from pgbreaker.errors import ConfigError

HEAD = """\
version: 1
targets:
  - name: main
    dsn: postgresql://monitor@db1/app
"""


def peers(block: str, **env: str) -> PeersPlan:
    plan = parse(f"{HEAD}peers: {block}\n".encode(), "x.yml", env=env).peers
    assert plan is not None
    return plan


def test_without_the_block_a_daemon_is_the_only_one():
    assert parse(HEAD.encode(), "x.yml").peers is None
    assert parse(f"{HEAD}peers:\n".encode(), "x.yml").peers is None


def test_an_address_is_enough():
    plan = peers("{url: redis://redis1}")

    assert plan.engine == EnginePlan(url=Secret("redis://redis1"))
    assert (plan.watchers, plan.quorum) == (1, None)
    assert plan.engine.lease >= 4 * plan.engine.timeout
    name = socket.gethostname()
    assert plan.name == name or len(plan.name) == len(name[:63])


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis1",
        "redis://redis1:6379/0",
        "rediss://pgbreaker@redis1.example.net:6380/15",
        "redis://pgbreaker:hunter2@redis1/0",
        "redis://:hunter2@10.0.0.1",
        "redis://me:hunter2%40%5B@[::1]:6379/0",
        "unix:///run/redis/redis.sock",
        "unix:///run/redis/redis.sock?db=3",
    ],
)
def test_every_kind_of_address_is_taken_and_no_password_of_it_shown(url):
    plan = peers(f'{{url: "{url}", name: a}}')

    assert plan.engine.url.reveal() == url
    assert "hunter2" not in f"{plan!r}{shown_url(url)}"


@pytest.mark.parametrize(
    "url",
    [
        *("", "redis://", "redis1:6379", "redis:///0", "REDIS://redis1", "redis://a b"),
        *("redis://redis1/zero", "redis://redis1/0?timeout=5", "redis://redis1#x"),
        *("unix://run/redis.sock", "unix:///", "redis://me:hunter@2@redis1"),
        *("redis://[1]/0", "redis://[::1/0", "redis://[hunter2]x:y@redis1/0"),
        "redis://me:hunter\N{ACCOUNT OF}2@redis1/0",
    ],
)
def test_what_is_no_address_is_not_shown_either(url):
    with pytest.raises(ConfigError) as caught:
        peers(f'{{url: "{url}"}}')

    assert "peers.url: not an engine's address" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_all_of_it_is_taken(tmp_path: Path):
    for file in ("ca.pem", "cert.pem", "key.pem", "password"):
        (tmp_path / file).write_text("x", "utf-8")

    raw = f"""{HEAD}
peers:
  url: rediss://pgbreaker@redis1
  password_file: {tmp_path}/password
  ca_file: {tmp_path}/ca.pem
  cert_file: {tmp_path}/cert.pem
  key_file: {tmp_path}/key.pem
  prefix: shop:eu
  name: eu-1
  watchers: 3
  quorum: 2
  timeout: 100ms
  lease: 5s
"""
    config = parse(raw.encode(), "x.yml")

    assert config.peers == PeersPlan(
        engine=EnginePlan(
            url=Secret("rediss://pgbreaker@redis1"),
            password_file=tmp_path / "password",
            ca_file=tmp_path / "ca.pem",
            cert_file=tmp_path / "cert.pem",
            key_file=tmp_path / "key.pem",
            prefix="shop:eu",
            timeout=0.1,
            lease=5.0,
        ),
        name="eu-1",
        watchers=3,
        quorum=2,
    )
    again = parse(written(config).encode(), "y.yml")
    assert shown(again) == shown(config)
    assert again.peers == config.peers


def test_a_password_in_the_address_is_left_out_when_it_is_written():
    config = parse(
        f'{HEAD}peers: {{url: "redis://me:hunter2@redis1/0", name: a}}\n'.encode(),
        "x.yml",
    )

    assert "hunter2" not in written(config)
    assert "url: redis://me@redis1/0" in written(config)


def test_it_may_come_from_the_environment():
    plan = peers('{url: "redis://me:${PASSWORD}@redis1"}', PASSWORD="hunter2")

    assert plan.engine.url == Secret("redis://me:hunter2@redis1")


@pytest.mark.parametrize("host", ["db 1.example", "ü" * 100, "a/b", "host"])
def test_whatever_the_host_is_called_the_daemon_has_a_name(host, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: host)

    name = peers("{url: redis://redis1}").name

    assert peers(f"{{url: redis://redis1, name: {name}}}").name == name


def test_a_host_without_a_name_is_told(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "")

    with pytest.raises(ConfigError, match=r"peers\.name: the host has no name"):
        peers("{url: redis://redis1}")


def test_a_lease_has_room_for_several_beats_and_timeouts():
    assert peers("{url: redis://redis1, timeout: 1ms, lease: 1s}").engine.lease == 1.0
    assert peers("{url: redis://redis1, timeout: 15s, lease: 1m}").engine.lease == 60.0


@pytest.mark.parametrize("secret", ["hunter2", "p@hunter2", "hunter2@x", "a:hunter2"])
def test_no_part_of_a_password_is_shown(secret):
    shown = shown_url(f"redis://me:{secret}@redis1:6379/0")

    assert shown == "redis://me@redis1:6379/0"
