"""Hashes of passwords: bcrypt, as every exporter has it, and scrypt, of Python itself."""

import base64
import binascii
import hashlib
import hmac
import os
import re
from types import ModuleType
from typing import Final

_BCRYPT: Final = re.compile(r"\$2[aby]?\$(\d\d)\$[./A-Za-z0-9]{53}")
# log2 of N, r, p, salt, hash. No commas: it has to fit between braces in YAML.
_SCRYPT: Final = re.compile(
    r"\$scrypt\$(\d{1,2})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_COST: Final = 10  # of bcrypt, some 70 ms: what exporter-toolkit's manual shows
_COSTS: Final = range(4, 17)
_LN, _R, _P = 14, 8, 5  # of scrypt: 16 MiB, about as long as bcrypt
_MOST_MEMORY: Final = 64 * 1024 * 1024
_MOST_ROUNDS: Final = 16
_LONGEST: Final = 72  # bytes that bcrypt looks at; Go and Python pass over the rest


def hash_password(text: str) -> str:
    """Hash a password for the web configuration.

    It is a bcrypt hash where the extra ``auth`` is installed, so that the file serves
    other exporters as well; else, and for a password longer than bcrypt reads, an
    scrypt hash, which only pgbreaker knows.

    Raises:
        ValueError: It is empty.
    """
    if not text:
        raise ValueError("an empty password is none")
    password, bcrypt = text.encode(), _bcrypt()
    if bcrypt is not None and len(password) <= _LONGEST and b"\0" not in password:
        hashed: bytes = bcrypt.hashpw(password, bcrypt.gensalt(_COST))
        return hashed.decode("ascii")
    salt = os.urandom(16)
    found = _scrypt(password, salt, 2**_LN, _R, _P, 32)
    return f"$scrypt${_LN}${_R}${_P}${_base64(salt)}${_base64(found)}"


def wrong_with(hashed: str) -> str | None:
    """Say why *hashed* cannot be used; None when it can. Never shows it."""
    if match := _BCRYPT.fullmatch(hashed):
        return _wrong_with_bcrypt(match)
    if match := _SCRYPT.fullmatch(hashed):
        return _wrong_with_scrypt(match)
    return "not a bcrypt or scrypt hash; pgbreaker hash-password makes one"


def _wrong_with_bcrypt(match: re.Match[str]) -> str | None:
    if int(match[1]) not in _COSTS:
        return f"a bcrypt cost of {match[1]}; 4 to 16 are taken, 10 is usual"
    if _bcrypt() is None:
        return (
            "a bcrypt hash needs bcrypt: pip install 'pgbreaker[auth]'; or make an"
            " scrypt hash with pgbreaker hash-password"
        )
    return None


def _wrong_with_scrypt(match: re.Match[str]) -> str | None:
    ln, r, p = (int(match[n]) for n in (1, 2, 3))
    fits = 128 * r * (2**ln + p + 2) <= _MOST_MEMORY and p <= _MOST_ROUNDS
    if not (ln and r and p and fits):
        return "an scrypt hash that takes more than 64 MiB, or 16 rounds"
    if _plain(match[4]) is None or not _plain(match[5]):
        return "an scrypt hash that is broken: its parts are not base64"
    return None


def matches(hashed: str, password: str) -> bool:
    """Whether *password* is the one; takes as long whether it is or not.

    *hashed* is one that nothing is wrong with. To be called off the loop: it works
    for a tenth of a second, and lets go of the interpreter meanwhile.
    """
    given = password.encode("utf-8", "surrogateescape")
    if match := _SCRYPT.fullmatch(hashed):
        ln, r, p = (int(match[n]) for n in (1, 2, 3))
        salt, right = _plain(match[4]), _plain(match[5])
        assert salt is not None
        assert right is not None
        found = _scrypt(given, salt, 2**ln, r, p, len(right))
        return hmac.compare_digest(found, right)
    bcrypt = _bcrypt()
    assert bcrypt is not None
    try:
        return bool(bcrypt.checkpw(given[:_LONGEST], hashed.encode("ascii")))
    except ValueError:
        return False  # a NUL in it: older versions refuse, as htpasswd did


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int, size: int) -> bytes:
    return hashlib.scrypt(
        password, salt=salt, n=n, r=r, p=p, dklen=size, maxmem=_MOST_MEMORY * 2
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii").rstrip("=")


def _plain(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def _bcrypt() -> ModuleType | None:
    try:
        import bcrypt  # an extra that few need
    except ImportError:
        return None
    return bcrypt
