"""The doors of a daemon of its own process, against clients that mean no good.

In short; `tests/bench/malformed.py` and `slow_clients.py` are the same at length.
"""

import asyncio
import subprocess

import pytest

from pgbreaker.errors import ConfigError
from pgbreaker.web.doors import read_web_config
from support.abuse import Slow, abused, good_requests, throw
from support.authority import Authority
from support.tools import need

GROWTH = 5.0  # MB


async def test_what_is_no_http_neither_kills_nor_leaks_nor_holds_up_others(tmp_path):
    async with abused(tmp_path) as daemon:
        await throw(daemon.port, 1000, seed=1)
        before = daemon.resident()
        async with good_requests(daemon.port) as took:
            told = await throw(daemon.port, 2000, seed=2)
        growth = daemon.resident() - before
        complaints = daemon.complaints()

    assert complaints == []
    assert told.wrong == []
    assert sum(told.statuses.values()) == 2000
    assert told.statuses[400] > 300
    assert [status for status in told.statuses if status in (500, 503, 504)] == []
    assert growth < GROWTH
    assert sorted(took)[len(took) // 2] < 100


async def test_clients_that_take_for_ever_do_not_starve_others(tmp_path):
    async with abused(tmp_path) as daemon:
        async with Slow(daemon.port, headers=600, readers=60, bodies=2) as slow:
            async with good_requests(daemon.port) as took:
                await asyncio.sleep(2)
            connections, opened = daemon.connections(), await slow.opened()
        complaints = daemon.complaints()

    assert complaints == []
    assert opened >= 662
    assert connections <= 520  # of one address, however many it opens
    assert len(took) > 10
    assert sorted(took)[len(took) // 2] < 100


# -- The web configuration, beside Prometheus' own -------------------------------------

BCRYPT = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
SHARED = {
    "users": f"basic_auth_users:\n  prometheus: {BCRYPT}\n",
    "certificates": PAIR,
    "certificates of clients": PAIR
    + "  client_ca_file: root.crt\n  client_auth_type: RequireAndVerifyClientCert\n",
    "ciphers": PAIR + "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n",
    "a curve": PAIR + "  curve_preferences: [CurveP256]\n  min_version: TLS12\n",
    "headers": "http_server_config:\n  http2: false\n"
    "  headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}\n",
}
REFUSED_BY_BOTH = {
    "an unknown key": "basic_auth_user: {}\n",
    "half a pair": "tls_server_config:\n  cert_file: server.crt\n",
    "an unknown cipher": PAIR + "  cipher_suites: [TLS_NONE]\n",
    "an unknown curve": PAIR + "  curve_preferences: [P256]\n",
    "an unknown version": PAIR + "  min_version: TLS14\n",
    "authorities without a policy": PAIR + "  client_ca_file: root.crt\n",
    "an unknown policy": PAIR + "  client_auth_type: Maybe\n",
    "an unknown header": "http_server_config:\n  headers: {X-Robots-Tag: none}\n",
    "no hash": "basic_auth_users:\n  ada: hunter2\n",
}
OURS = f"basic_auth_users:\n  ada: {BCRYPT}\npgbreaker:\n  roles: {{ada: admin}}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.found(tmp_path_factory.mktemp("tls") / "authority")


def verdicts(authority, name: str, text: str) -> tuple[bool, bool]:
    """Whether we take a file, and whether Prometheus does."""
    path = authority.home / f"{name.replace(' ', '-')}.yml"
    path.write_text(text, "utf-8")
    promtool = need("promtool", "prometheus")
    theirs = subprocess.run(
        [promtool, "check", "web-config", path], capture_output=True, check=False
    )
    try:
        read_web_config(path)
    except ConfigError:
        return False, theirs.returncode == 0
    return True, theirs.returncode == 0


@pytest.mark.parametrize("name", SHARED)
def test_what_prometheus_takes_we_take(authority, name):
    assert verdicts(authority, name, SHARED[name]) == (True, True)


@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_what_prometheus_refuses_we_refuse(authority, name):
    assert verdicts(authority, name, REFUSED_BY_BOTH[name]) == (False, False)


def test_a_file_with_our_section_is_ours_alone(authority):
    assert verdicts(authority, "ours", OURS) == (True, False)
