"""The web configuration: what is taken, what is refused and where, what is read anew."""

import ssl
from pathlib import Path

import pytest

from pgbreaker.errors import ConfigError
from pgbreaker.web.doors import hash_token, read_web_config
from pgbreaker.web.doors.present import Present
from pgbreaker.web.route import Role
from support.doors import scrypt_of, write

HASH = scrypt_of("ada")
TOKEN = hash_token("x")


def read(tmp_path: Path, text: str):
    path = tmp_path / "web.yml"
    path.write_text(text, "utf-8")
    return read_web_config(path)


def test_a_file_of_exporters_is_taken_as_it_is(tmp_path):
    plan = read(
        tmp_path,
        f"""
http_server_config:
  http2: true
  headers: {{Strict-Transport-Security: max-age=31536000, X-Frame-Options: deny}}
basic_auth_users:
  prometheus: {HASH}
rate_limit: {{interval: 100ms, burst: 20}}
""",
    )

    assert plan.users == {"prometheus": HASH}
    assert plan.role_of("prometheus") is Role.VIEWER
    assert plan.anonymous is Role.NOBODY
    assert (plan.interval, plan.burst) == (0.1, 20)
    assert plan.headers["X-Frame-Options"] == "deny"
    assert plan.tls is None


def test_roles_tokens_and_what_strangers_may_are_ours_besides(tmp_path):
    plan = read(
        tmp_path,
        f"""
basic_auth_users: {{ada: {HASH}, ben: {HASH}}}
pgbreaker:
  roles: {{ada: admin, deploy: operator}}
  tokens: {{deploy: "{TOKEN}"}}
  anonymous: viewer
""",
    )

    roles = {name: plan.role_of(name) for name in ("ada", "ben", "deploy")}
    assert roles == {"ada": Role.ADMIN, "ben": Role.VIEWER, "deploy": Role.OPERATOR}
    assert plan.tokens == {"deploy": TOKEN.removeprefix("sha256:")}
    assert plan.anonymous is Role.VIEWER


def test_tls_is_read_with_its_files_beside_the_configuration(tmp_path):
    for name in ("a.crt", "a.key", "ca.crt"):
        (tmp_path / name).write_text(name)
    plan = read(
        tmp_path,
        """
tls_server_config:
  cert_file: a.crt
  key_file: a.key
  client_ca_file: ca.crt
  client_auth_type: RequireAndVerifyClientCert
  client_allowed_sans: [one.example, 192.0.2.7]
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
""",
    ).tls

    assert plan is not None
    assert (plan.certificate, plan.key.reveal()) == (b"a.crt", "a.key")
    assert (plan.authorities, plan.is_required) == ("ca.crt", True)
    assert plan.names == {"one.example", "192.0.2.7"}
    assert plan.least is plan.most is ssl.TLSVersion.TLSv1_3
    assert plan.ciphers == "ECDHE-RSA-AES128-GCM-SHA256"
    assert (plan.prefers_ours, plan.curve) == (False, "X25519")
    assert "a.key" not in repr(plan)


TLS = "tls_server_config: {cert: x, key: y, "

REFUSED = [
    ("", "web.yml: the file is empty"),
    ("# nothing\n---\n\n", "web.yml: the file is empty"),
    ("basic_auth_user: {}", "web.yml:1:1: basic_auth_user: not a known key; did you mean 'basic_auth_users'?"),
    ("basic_auth_users: {ada: hunter2}", "web.yml:1:25: basic_auth_users.ada: not a bcrypt or scrypt hash; pgbreaker hash-password makes one"),
    ("basic_auth_users: [ada]", "web.yml:1:19: basic_auth_users: must hold keys and values"),
    (f"basic_auth_users:\n  'a:b': {HASH}", "web.yml:2:3: basic_auth_users.?: a user's name has no colon"),
    ("tls_server_config: {cert_file: no.crt, key_file: no.key}", "web.yml:1:32: tls_server_config.cert_file: cannot read no.crt: no such file or directory\nweb.yml:1:50: tls_server_config.key_file: cannot read no.key: no such file or directory"),
    ("tls_server_config: {cert: x}", "web.yml:1:20: tls_server_config: needs key_file (or key)"),
    ("tls_server_config: {cert: x, cert_file: web.yml, key: y}", "web.yml:1:41: tls_server_config.cert_file: given beside cert; one of them"),
    (TLS + "client_auth_type: RequireAnyClientCert}", "web.yml:1:56: tls_server_config.client_auth_type: RequireAnyClientCert is not supported: it takes certificates that nobody has checked; use RequireAndVerifyClientCert"),
    (TLS + "client_auth_type: RequireAndVerifyClientCert}", "web.yml:1:56: tls_server_config.client_auth_type: needs client_ca_file (or client_ca)"),
    (TLS + "client_auth_type: RequireAndVerifyClientCert, client_ca: ''}", "web.yml:1:56: tls_server_config.client_auth_type: needs client_ca_file (or client_ca)"),
    (TLS + "client_auth_type: Maybe}", "'Maybe' is none; there are NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"),
    (TLS + "client_ca: z}", "web.yml:1:20: tls_server_config: has authorities for clients, but no client_auth_type"),
    (TLS + "client_allowed_sans: [a]}", "needs client_auth_type: RequireAndVerifyClientCert"),
    (TLS + "min_version: TLS10}", "web.yml:1:51: tls_server_config.min_version: TLS10 is not served; TLS12 is the oldest"),
    (TLS + "min_version: TLS14}", "'TLS14' is none; did you mean 'TLS13'?"),
    (TLS + "min_version: TLS13, max_version: TLS12}", "tls_server_config.min_version: newer than max_version"),
    (TLS + "cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}", "tls_server_config.cipher_suites.0: unknown cipher 'TLS_RSA_WITH_RC4_128_SHA'"),
    (TLS + "curve_preferences: [P256]}", "unknown curve 'P256'; did you mean 'CurveP256'?"),
    (TLS + "curve_preferences: [X25519, CurveP256]}", "several are not supported"),
    ("http_server_config: {http2: maybe}", "http_server_config.http2: 'maybe' is none; there are true, false"),
    ("http_server_config: {headers: {X-Robots-Tag: none}}", "not a known key"),
    ("http_server_config: {headers: {X-Frame-Options: allow}}", "'allow' is not deny or sameorigin"),
    ('http_server_config: {headers: {X-XSS-Protection: "0\\r\\nSet-Cookie: a=b"}}', "has characters that no header may have"),
    ("rate_limit: {interval: 5}", "rate_limit.interval: 5 of what? write 5s or 5ms"),
    ("rate_limit: {interval: 1s}", "needs a burst of 1 or more"),
    ("rate_limit: {interval: 1s, burst: many}", "not a number of requests"),
    ("pgbreaker: {roles: {ada: admin}}", "nobody logs in as 'ada'; nobody can"),
    (f"basic_auth_users: {{alice: {HASH}}}\npgbreaker: {{roles: {{alcie: admin}}}}", "web.yml:2:21: pgbreaker.roles.alcie: nobody logs in as 'alcie'; did you mean 'alice'?"),
    (f"basic_auth_users: {{ada: {HASH}}}\npgbreaker: {{roles: {{ada: root}}}}", "'root' is none; there are viewer, operator, admin"),
    (f"basic_auth_users: {{ada: {HASH}}}\npgbreaker: {{roles: {{ada: }}}}", "one of viewer, operator, admin"),
    ("pgbreaker: {tokens: {robot: hunter2}}", "web.yml:1:29: pgbreaker.tokens.robot: not sha256: and 64 digits, the hash of a token"),
    (f"basic_auth_users: {{ada: {HASH}}}\npgbreaker: {{tokens: {{ada: '{TOKEN}'}}}}", "a user has this name, too"),
    ("pgbreaker: {anonymous: admin}", "'admin' is none; there are none, viewer"),
    ("pgbreaker: {anonymous: none}", "nobody could come in"),
    ("pgbreaker: 7", "pgbreaker: must hold keys and values"),
    ("{", "web.yml:1:"),
    ("a: 1\na: 2", "given twice"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_cannot_be_honoured_is_refused_by_name_and_place(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)

    assert said in str(caught.value).replace(f"{tmp_path}/", "")
    assert "hunter2" not in str(caught.value)


def test_an_empty_file_of_authorities_is_none(tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"")
    asking = "client_ca_file: ca.crt, client_auth_type: RequireAndVerifyClientCert}"

    with pytest.raises(ConfigError, match="needs client_ca_file"):
        read(tmp_path, TLS + asking)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_web_config(tmp_path / "web.yml")

    assert str(caught.value) == f"{tmp_path}/web.yml: no such file or directory"


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "a: 1\nbasic_auth_users: {x: y}\nrate_limit: {burst: z}\n")

    assert len(caught.value.problems) == 3


# -- Read anew --------------------------------------------------------------------------


async def test_a_file_that_changes_is_read_anew(tmp_path, caplog):
    path = write(tmp_path / "web.yml", basic_auth_users={"ada": HASH})
    present = Present(path)
    caplog.set_level("INFO")
    await present.look()
    assert caplog.messages == []

    write(path, basic_auth_users={"ben": HASH})
    await present.look()

    assert set(present.plan.users) == {"ben"}
    assert caplog.messages == [f"the web configuration {path} was read anew"]


@pytest.mark.parametrize("text", ["", "{", "basic_auth_users: {ada: x}", None])
async def test_a_broken_one_changes_nothing_and_is_told_of_once(tmp_path, caplog, text):
    path = write(tmp_path / "web.yml", basic_auth_users={"ada": HASH})
    present = Present(path)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)

    await present.look()
    await present.look()
    assert set(present.plan.users) == {"ada"}
    assert len(caplog.records) == 1
    assert "stays as it was" in caplog.text

    write(path, basic_auth_users={"ben": HASH})
    await present.look()
    assert set(present.plan.users) == {"ben"}


async def test_the_same_file_again_after_a_broken_one_is_news(tmp_path, caplog):
    path = write(tmp_path / "web.yml", basic_auth_users={"ada": HASH})
    good = path.read_bytes()
    present = Present(path)
    path.write_text("{")
    await present.look()

    path.write_bytes(good)
    caplog.set_level("INFO")
    await present.look()

    assert caplog.messages[-1] == f"the web configuration {path} was read anew"
