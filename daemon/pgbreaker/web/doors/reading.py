"""Reads the web configuration, in the format of Prometheus' exporter-toolkit.

What is in that format and cannot be honoured here is refused by its name: a setting of
security that is silently passed over is worse than none. One section is ours alone,
``pgbreaker``: exporters refuse a file that has it, as they refuse every unknown key.
So a file without it can be shared with them, and then every user is a viewer; who may
do more is said in a file of our own.
"""

import re
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, TypeVar

from pgbreaker.config.document import Data, Document, did_you_mean, read
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import Seconds, duration
from pgbreaker.errors import ConfigError
from pgbreaker.web.doors.passwords import wrong_with
from pgbreaker.web.doors.plan import TlsPlan, WebPlan
from pgbreaker.web.route import Role

T = TypeVar("T")
D = TypeVar("D")

_TOP: Final = (
    *("tls_server_config", "http_server_config", "basic_auth_users"),
    *("rate_limit", "pgbreaker"),
)
_TLS: Final = (
    *("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file"),
    *("client_auth_type", "client_allowed_sans", "min_version", "max_version"),
    *("cipher_suites", "prefer_server_cipher_suites", "curve_preferences"),
)
_HEADERS: Final = {
    "Content-Security-Policy": None,
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": None,
    "Strict-Transport-Security": None,
}
_VERSIONS: Final = {
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}
_OLD_VERSIONS: Final = ("TLS10", "TLS11")
_ASKING: Final = {
    "NoClientCert": False,
    "VerifyClientCertIfGiven": False,
    "RequireAndVerifyClientCert": True,
}
# Python's TLS cannot ask for a certificate without checking it, and nor should we.
_UNCHECKED: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
# Go's names -> OpenSSL's; those of TLS 1.3 cannot be chosen in Go either.
_CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": None,
    "TLS_AES_256_GCM_SHA384": None,
    "TLS_CHACHA20_POLY1305_SHA256": None,
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
_CURVES: Final = {
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
    "X25519": "X25519",
}
_ROLES: Final = {
    "viewer": Role.VIEWER,
    "operator": Role.OPERATOR,
    "admin": Role.ADMIN,
}
_ANONYMOUS: Final = {"none": Role.NOBODY, "viewer": Role.VIEWER}
_FLAGS: Final = {"true": True, "false": False}
_TOKEN: Final = re.compile(r"sha256:([0-9a-f]{64})")


def read_web_config(path: Path) -> WebPlan:
    """Read the web configuration at *path*, and the files that it names.

    Raises:
        ConfigError: It cannot be used; every reason with its line and column.
    """
    return Reading(path).result()


class Reading:
    """One reading of a web configuration.

    Attributes:
        files: Every file that was looked at -> what it held; None: it was not there.
    """

    def __init__(self, path: Path) -> None:
        self.files: dict[Path, bytes | None] = {}
        self._path = path
        self._document = Document()
        self._reason = ""
        self._complained: set[tuple[str | int, ...]] = set()

    def result(self) -> WebPlan:
        """Return what it says.

        Raises:
            ConfigError: It cannot be used.
        """
        raw = self._contents(self._path)
        if raw is None:
            raise ConfigError((f"{self._path}: {self._reason}",))
        if _is_empty(raw):
            # Exporters take it for "let everybody in". It is more likely half written.
            raise ConfigError((f"{self._path}: the file is empty",))
        self._document = read(raw)
        plan = self._plan() if not self._document.problems else WebPlan()
        problems = sorted(set(self._document.problems))
        if problems:
            raise ConfigError(
                tuple(f"{self._path}:{p.line}:{p.column}: {p.text}" for p in problems)
            )
        return plan

    def _plan(self) -> WebPlan:
        self._known((), self._document.data, _TOP)
        tls = self._tls()
        users = self._users()
        tokens = self._tokens()
        names = {*users, *tokens}
        interval, burst = self._rate()
        if twice := sorted(set(users) & set(tokens)):
            where = ("pgbreaker", "tokens", twice[0])
            self._wrong(where, "a user has this name, too", at_key=True)
        return WebPlan(
            tls=tls,
            headers=self._headers(),
            users=users,
            tokens=tokens,
            roles=self._roles(names, certificates=bool(tls and tls.authorities)),
            anonymous=self._anonymous(bool(names or (tls and tls.authorities))),
            interval=interval,
            burst=burst,
        )

    # -- TLS ---------------------------------------------------------------------------

    def _tls(self) -> TlsPlan | None:
        at = "tls_server_config"
        given = self._section((at,), _TLS)
        if not given:
            return None
        certificate = self._either((at,), "cert", "cert_file")
        key = self._either((at,), "key", "key_file")
        for what, found in (("cert", certificate), ("key", key)):
            if found is None and not self._is_wrong(at):
                self._wrong((at,), f"needs {what}_file (or {what})")
        authorities, is_required = self._clients()
        least, most = self._version("min_version"), self._version("max_version")
        ours = self._choice((at, "prefer_server_cipher_suites"), _FLAGS, default=True)
        plan = TlsPlan(
            certificate=certificate or b"",
            key=Secret((key or b"").decode("latin-1")),
            authorities=authorities,
            is_required=is_required,
            names=self._sans(is_required=is_required),
            least=least or ssl.TLSVersion.TLSv1_2,
            most=most or ssl.TLSVersion.TLSv1_3,
            ciphers=self._ciphers(),
            prefers_ours=ours,
            curve=self._curve(),
        )
        if plan.least > plan.most:
            self._wrong((at, "min_version"), "newer than max_version")
        return plan

    def _clients(self) -> tuple[str | None, bool]:
        """Whose certificates of clients are believed, and whether one is needed."""
        at = "tls_server_config"
        authorities = self._either((at,), "client_ca", "client_ca_file")
        where = (at, "client_auth_type")
        asking = self._text(where)
        if asking in _UNCHECKED:
            self._wrong(
                where,
                f"{asking} is not supported: it takes certificates that nobody has"
                " checked; use RequireAndVerifyClientCert",
            )
            return None, False
        is_required = self._choice(where, _ASKING, default=False)
        is_asked = asking not in (None, "", "NoClientCert")
        if authorities and not is_asked:
            self._wrong((at,), "has authorities for clients, but no client_auth_type")
        if is_asked and not authorities:
            # Go would believe every authority that the machine does: a certificate of
            # anybody's mail address would open the doors.
            self._wrong(where, "needs client_ca_file (or client_ca)")
        return authorities.decode("latin-1") if authorities else None, is_required

    def _sans(self, *, is_required: bool) -> frozenset[str] | None:
        where = ("tls_server_config", "client_allowed_sans")
        names = self._texts(where)
        if names is None:
            return None
        if not is_required:
            needs = "needs client_auth_type: RequireAndVerifyClientCert"
            self._wrong(where, needs)
        return frozenset(names)

    def _version(self, key: str) -> ssl.TLSVersion | None:
        where = ("tls_server_config", key)
        if (said := self._text(where)) in _OLD_VERSIONS:
            self._wrong(where, f"{said} is not served; TLS12 is the oldest")
            return None
        return self._choice(where, _VERSIONS, default=None)

    def _ciphers(self) -> str | None:
        where = ("tls_server_config", "cipher_suites")
        names = self._texts(where)
        found = []
        for number, name in enumerate(names or ()):
            if name not in _CIPHERS:
                meant = did_you_mean(name, _CIPHERS)
                self._wrong((*where, number), f"unknown cipher {name!r}; {meant}")
            elif cipher := _CIPHERS[name]:
                found.append(cipher)
        return ":".join(found) if found else None

    def _curve(self) -> str | None:
        where = ("tls_server_config", "curve_preferences")
        names = self._texts(where) or ()
        for number, name in enumerate(names):
            if name not in _CURVES:
                meant = did_you_mean(name, _CURVES)
                self._wrong((*where, number), f"unknown curve {name!r}; {meant}")
                return None
        if len(names) > 1:
            self._wrong(
                where,
                "several are not supported: Python's TLS takes one curve, or OpenSSL's"
                " own order when there is none",
            )
        return _CURVES[names[0]] if names else None

    # -- Everything else ---------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        at = ("http_server_config",)
        given = self._section(at, ("http2", "headers"))
        # HTTP/2 is an offer in the handshake: who wants it and does not get it speaks
        # HTTP/1.1, as with every server that has none.
        self._choice((*at, "http2"), _FLAGS, default=True)
        if "headers" not in given:
            return {}
        where = (*at, "headers")
        self._section(where, tuple(_HEADERS))
        found = {}
        for name, values in _HEADERS.items():
            value = self._text((*where, name))
            if not value:
                continue  # blank: exporters leave it out; ours stays as it is
            if values is not None and value not in values:
                there_are = " or ".join(values)
                self._wrong((*where, name), f"{value!r} is not {there_are}")
            if not value.isascii() or not value.isprintable():
                self._wrong((*where, name), "has characters that no header may have")
            found[name] = value
        return found

    def _users(self) -> dict[str, str]:
        users = {}
        for name in self._section(("basic_auth_users",)):
            where = ("basic_auth_users", name)
            if not name or ":" in name:
                self._wrong(where, "a user's name has no colon", at_key=True)
            hashed = self._text(where)
            if wrong := wrong_with(hashed or ""):
                self._wrong(where, wrong)
            users[name] = hashed or ""
        return users

    def _rate(self) -> tuple[Seconds, int]:
        given = self._section(("rate_limit",), ("interval", "burst"))
        interval: Seconds = 0.0
        if (said := given.get("interval", 0)) != 0:
            try:
                interval = duration(said)
            except ValueError as error:
                self._wrong(("rate_limit", "interval"), str(error))
        burst = given.get("burst", 0)
        if isinstance(burst, bool) or not isinstance(burst, int) or burst < 0:
            self._wrong(("rate_limit", "burst"), "not a number of requests")
            burst = 0
        if interval and not burst:
            self._wrong(("rate_limit",), "needs a burst of 1 or more, or none pass")
        return interval, burst

    def _tokens(self) -> dict[str, str]:
        self._section(("pgbreaker",), ("roles", "tokens", "anonymous"))
        tokens = {}
        for name in self._section(("pgbreaker", "tokens")):
            where = ("pgbreaker", "tokens", name)
            match = _TOKEN.fullmatch(self._text(where) or "")
            if match is None:
                self._wrong(where, "not sha256: and 64 digits, the hash of a token")
            else:
                tokens[name] = match[1]
        return tokens

    def _roles(self, names: set[str], *, certificates: bool) -> dict[str, Role]:
        roles = {}
        for name in self._section(("pgbreaker", "roles")):
            where = ("pgbreaker", "roles", name)
            if name not in names and not certificates:
                meant = did_you_mean(name, sorted(names)) if names else "nobody can"
                self._wrong(where, f"nobody logs in as {name!r}; {meant}", at_key=True)
            role = self._choice(where, _ROLES, default=None)
            if role is None:
                self._wrong(where, f"one of {', '.join(_ROLES)}")
            else:
                roles[name] = role
        return roles

    def _anonymous(self, somebody_logs_in: bool) -> Role:
        where = ("pgbreaker", "anonymous")
        role = self._choice(where, _ANONYMOUS, default=None)
        if role is Role.NOBODY and not somebody_logs_in:
            self._wrong(where, "nobody could come in: there are no users and no tokens")
        return role or Role.NOBODY

    # -- Words -------------------------------------------------------------------------

    def _wrong(
        self, path: tuple[str | int, ...], text: str, *, at_key: bool = False
    ) -> None:
        if path not in self._complained:
            self._complained.add(path)
            self._document.complain(path, text, at_key=at_key)

    def _is_wrong(self, section: str) -> bool:
        """Whether anything in a section was complained of already."""
        return any(path[0] == section for path in self._complained if path)

    def _at(self, path: tuple[str, ...]) -> Data:
        found: Data = self._document.data
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _section(
        self, path: tuple[str, ...], known: Collection[str] | None = None
    ) -> dict[str, Data]:
        found = self._at(path)
        if found is None:
            return {}
        if not isinstance(found, dict):
            self._wrong(path, "must hold keys and values")
            return {}
        if known is not None:
            self._known(path, found, known)
        return found

    def _known(
        self, path: tuple[str, ...], found: dict[str, Data], known: Collection[str]
    ) -> None:
        for key in found:
            if key not in known:
                meant = did_you_mean(key, known)
                self._wrong((*path, key), f"not a known key; {meant}", at_key=True)

    def _text(self, path: tuple[str, ...]) -> str | None:
        found = self._at(path)
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        self._wrong(path, "must be a text")
        return None

    def _texts(self, path: tuple[str, ...]) -> list[str] | None:
        found = self._at(path)
        if found is None:
            return None
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return [str(one) for one in found]
        self._wrong(path, "must be a list of texts")
        return None

    def _choice(
        self, path: tuple[str, ...], choices: Mapping[str, T], *, default: D
    ) -> T | D:
        found = self._at(path)
        said = str(found).lower() if isinstance(found, bool) else self._text(path)
        if not said:
            return default
        if said not in choices:
            self._wrong(path, f"{said!r} is none; {did_you_mean(said, choices)}")
            return default
        return choices[said]

    def _either(self, at: tuple[str, ...], text: str, file: str) -> bytes | None:
        """What is given in the file itself, or the name of a file."""
        given, name = self._text((*at, text)), self._text((*at, file))
        if given and name:
            self._wrong((*at, file), f"given beside {text}; one of them")
        if given:
            return given.encode()
        if not name:
            return None
        path = self._path.parent / name
        raw = self._contents(path)
        if raw is None:
            self._wrong((*at, file), f"cannot read {name}: {self._reason}")
        return raw

    def _contents(self, path: Path) -> bytes | None:
        try:
            raw = path.read_bytes()
        except OSError as error:
            self._reason = (error.strerror or str(error)).lower()
            raw = None
        self.files[path] = raw
        return raw


def _is_empty(raw: bytes) -> bool:
    lines = (line.strip() for line in raw.splitlines())
    return all(not line or line.startswith((b"#", b"---")) for line in lines)
