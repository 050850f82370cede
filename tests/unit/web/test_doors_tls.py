"""Encrypted connections: certificates of ours and of clients, and new ones."""

import asyncio
import shutil
import ssl
import time
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from pgbreaker.core.plan import HttpPlan
from pgbreaker.errors import PgbreakerError
from pgbreaker.web.doors.limits import DEFAULT, Limits
from pgbreaker.web.doors.present import Present
from support.authority import Authority
from support.doors import basic, client_certificate, doors, scrypt_of, write

STATUS = "/api/v1/status"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.found(tmp_path_factory.mktemp("tls") / "one")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority.found(tmp_path_factory.mktemp("tls") / "two")


@pytest.fixture(scope="module")
def clients(authority):
    """Certificates of clients, and their keys."""
    return {
        "ada": client_certificate(authority, "ada"),
        "eve": client_certificate(authority, "eve"),
    }


def written(tmp_path, authority, *, users=None, ours=None, **tls):
    """A web configuration with the certificate of *authority*, beside its files."""
    for name in ("server.crt", "server.key"):
        shutil.copy(authority.home / name, tmp_path / name)
    shutil.copy(authority.root, tmp_path / "ca.crt")
    tls = {"cert_file": "server.crt", "key_file": "server.key"} | tls
    more = {"basic_auth_users": users} if users else {}
    more |= {"pgbreaker": ours} if ours else {}
    return write(tmp_path / "web.yml", tls_server_config=tls, **more)


@asynccontextmanager
async def encrypted(config, authority, client=None, *, limits=DEFAULT):
    """Serve by *config*; a session of somebody who believes *authority*."""
    trusting = ssl.create_default_context(cafile=authority.root)
    if client is not None:
        trusting.load_cert_chain(*client)
    plan = HttpPlan(listen=("127.0.0.1", 0), web_config=config)
    async with doors(plan, limits=limits) as served:
        connector = aiohttp.TCPConnector(ssl=trusting, force_close=True)
        url = f"https://localhost:{served.port}"
        async with aiohttp.ClientSession(url, connector=connector) as session:
            served.client = session
            yield served


async def test_connections_are_encrypted_and_other_ports_of_the_host_are_left_alone(
    tmp_path, authority
):
    config = written(tmp_path, authority, users={"ada": scrypt_of("ada")})
    async with encrypted(config, authority) as served:
        answer, _ = await served.get(STATUS, headers=basic("ada"))
        without, _ = await served.get(STATUS)

    assert (answer.status, without.status) == (200, 401)
    assert "Strict-Transport-Security" not in answer.headers


async def test_who_speaks_in_clear_is_hung_up_on_and_the_log_is_silent(
    tmp_path, authority, caplog
):
    config = written(tmp_path, authority)
    async with encrypted(config, authority) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        answer, _ = await served.get("/-/healthy")

    assert b"HTTP" not in said
    assert answer.status == 200
    assert caplog.records == []


async def test_old_versions_are_not_spoken(tmp_path, authority):
    config = written(tmp_path, authority, min_version="TLS13")
    async with encrypted(config, authority) as served:
        old = ssl.create_default_context(cafile=authority.root)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(aiohttp.ClientConnectorError):
            await served.client.get("/-/healthy", ssl=old)


async def test_ciphers_and_the_curve_are_those_of_the_file(tmp_path, authority):
    config = written(
        tmp_path,
        authority,
        max_version="TLS12",
        cipher_suites=["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
        curve_preferences=["CurveP384"],
    )
    trusting = ssl.create_default_context(cafile=authority.root)
    async with encrypted(config, authority) as served:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=trusting, server_hostname="localhost"
        )
        cipher = writer.get_extra_info("cipher")
        writer.close()

    assert cipher[:2] == ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2")


async def test_a_client_without_a_certificate_is_hung_up_on(
    tmp_path, authority, clients
):
    config = written(
        tmp_path,
        authority,
        client_ca_file="ca.crt",
        client_auth_type="RequireAndVerifyClientCert",
    )
    async with encrypted(config, authority, clients["ada"]) as served:
        answer, _ = await served.get(STATUS)
        without = ssl.create_default_context(cafile=authority.root)
        with pytest.raises(aiohttp.ClientError):
            await served.client.get("/-/healthy", ssl=without)

    assert answer.status == 200


async def test_a_certificate_of_somebody_else_is_none(tmp_path, authority, other):
    config = written(
        tmp_path,
        authority,
        client_ca_file="ca.crt",
        client_auth_type="RequireAndVerifyClientCert",
    )
    foreign = client_certificate(other, "ada")
    async with encrypted(config, authority, foreign) as served:
        with pytest.raises(aiohttp.ClientError):
            await served.client.get("/-/healthy")


async def test_the_name_in_a_certificate_has_a_role(tmp_path, authority, clients):
    config = written(
        tmp_path,
        authority,
        ours={"roles": {"ada": "admin"}},
        client_ca_file="ca.crt",
        client_auth_type="VerifyClientCertIfGiven",
    )
    found = {}
    for name, client in (*clients.items(), ("nobody", None)):
        async with encrypted(config, authority, client) as served:
            read, _ = await served.get(STATUS)
            async with served.client.post("/-/reload") as answer:
                found[name] = read.status, answer.status

    # 409: there is nothing to reload; the rest got no further.
    assert found == {"ada": (200, 409), "eve": (200, 403), "nobody": (403, 403)}


async def test_where_there_are_users_a_certificate_without_a_role_is_not_enough(
    tmp_path, authority, clients
):
    config = written(
        tmp_path,
        authority,
        users={"ben": scrypt_of("ben")},
        ours={"roles": {"ada": "viewer"}},
        client_ca_file="ca.crt",
        client_auth_type="RequireAndVerifyClientCert",
    )
    found = {}
    for name, client in clients.items():
        async with encrypted(config, authority, client) as served:
            read, _ = await served.get(STATUS)
            logged_in, _ = await served.get(STATUS, headers=basic("ben"))
            found[name] = read.status, logged_in.status

    assert found == {"ada": (200, 200), "eve": (401, 200)}


async def test_a_certificate_needs_one_of_the_names_that_are_allowed(
    tmp_path, authority, clients
):
    config = written(
        tmp_path,
        authority,
        client_ca_file="ca.crt",
        client_auth_type="RequireAndVerifyClientCert",
        client_allowed_sans=["ada"],
    )
    async with encrypted(config, authority, clients["ada"]) as served:
        answer, _ = await served.get("/-/healthy")
    async with encrypted(config, authority, clients["eve"]) as served:
        with pytest.raises(aiohttp.ClientError):
            await served.client.get("/-/healthy")

    assert answer.status == 200


async def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on(
    tmp_path, authority, other
):
    config = written(tmp_path, authority)
    old = ssl.create_default_context(cafile=authority.root)
    new = ssl.create_default_context(cafile=other.root)
    ask = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with encrypted(config, authority) as served:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=old, server_hostname="localhost"
        )
        for name in ("server.crt", "server.key"):
            shutil.copy(other.home / name, tmp_path / name)
        async with asyncio.timeout(10):
            while True:
                try:
                    async with served.client.get("/-/healthy", ssl=new) as answer:
                        assert answer.status == 200
                        break
                except aiohttp.ClientConnectorCertificateError:
                    writer.write(ask)
                    assert b" 200 " in await reader.readuntil(b"}")
                    await asyncio.sleep(0.05)
        writer.write(ask)
        still = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await served.client.get("/-/healthy")

    assert b" 200 " in still


async def test_half_of_a_new_pair_changes_nothing(tmp_path, authority, other, caplog):
    config = written(tmp_path, authority)
    present = Present(config)
    before = present.context

    shutil.copy(other.home / "server.crt", tmp_path / "server.crt")
    await present.look()
    assert present.context is before
    assert (
        "the certificate and its key cannot be used: key values mismatch" in caplog.text
    )

    shutil.copy(other.home / "server.key", tmp_path / "server.key")
    await present.look()
    assert present.context is not before


async def test_encryption_is_not_turned_off_while_we_run(tmp_path, authority, caplog):
    config = written(tmp_path, authority, users={"ada": scrypt_of("ada")})
    present = Present(config)

    write(config, basic_auth_users={"ben": scrypt_of("ben")})
    await present.look()

    assert present.context is not None
    assert set(present.plan.users) == {"ada"}
    assert "turned on or off by a restart" in caplog.text


def test_certificates_may_stand_in_the_file_itself(tmp_path, authority):
    config = write(
        tmp_path / "web.yml",
        tls_server_config={
            "cert": (authority.home / "server.crt").read_text(),
            "key": (authority.home / "server.key").read_text(),
            "client_ca": authority.root.read_text(),
            "client_auth_type": "VerifyClientCertIfGiven",
        },
    )

    context = Present(config).context

    assert context is not None
    assert context.verify_mode is ssl.CERT_OPTIONAL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cert": "rubbish"}, "the certificate and its key cannot be used"),
        ({"key": "rubbish"}, "the certificate and its key cannot be used"),
        ({"client_ca": "rubbish"}, "the authorities of clients cannot be used"),
    ],
    ids=str,
)
def test_rubbish_for_a_certificate_is_one_clear_line(tmp_path, authority, change, said):
    config = write(
        tmp_path / "web.yml",
        tls_server_config={
            "cert": (authority.home / "server.crt").read_text(),
            "key": (authority.home / "server.key").read_text(),
            "client_ca": authority.root.read_text(),
            "client_auth_type": "VerifyClientCertIfGiven",
        }
        | change,
    )

    with pytest.raises(PgbreakerError, match=said) as caught:
        Present(config)

    assert "\n" not in str(caught.value)


async def test_who_does_not_get_as_far_as_a_handshake_counts_and_is_hung_up_on(
    tmp_path, authority
):
    config = written(tmp_path, authority)
    limits = Limits(header=0.5, connections=8)
    async with encrypted(config, authority, limits=limits) as served:
        opened = [
            await asyncio.open_connection("127.0.0.1", served.port) for _ in range(12)
        ]
        answer, _ = await served.get("/-/healthy")
        began = time.monotonic()
        said = [await _end_of(reader) for reader, _ in opened]
        took = time.monotonic() - began
        for _, writer in opened:
            writer.close()

    assert answer.status == 200
    assert said == [b""] * 12
    assert took < 3


async def _end_of(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 5)
    return b""


async def test_stopping_does_not_wait_for_handshakes(tmp_path, authority, caplog):
    config = written(tmp_path, authority)
    async with encrypted(config, authority) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        await served.get("/-/healthy")
        began = time.monotonic()
    took = time.monotonic() - began
    writer.close()

    assert took < 2
    assert caplog.records == []
