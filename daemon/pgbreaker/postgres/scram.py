"""Proving that we know a password: SCRAM-SHA-256 and md5. Pure computation.

The dear part of SCRAM, thousands of rounds of HMAC, depends only on the password, the
salt and the number of rounds, which stay the same from login to login. So its outcome
is kept, and a role that logs in every few seconds pays for it once.

SCRAM is RFC 5802 with the hash of RFC 7677; the password is prepared by RFC 4013.
"""

import base64
import binascii
import hashlib
import hmac
import os
import stringprep
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

_MOST_KEPT: Final = 4096
# More would hold up everybody else in this process for half a second: rounds are the
# server's choice (scram_iterations, 4096), and the server may be an impostor.
_MOST_ROUNDS: Final = 1_000_000
_NONCE_BYTES: Final = 18
# "n,,": we do not bind the login to the TLS channel; "biws" is that in base64.
_NO_BINDING: Final = "n,,"
_NO_BINDING_CODED: Final = "biws"


class ScramError(Exception):
    """The server's part of the exchange is not what it must be."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a password comes to with a salt; as secret as the password itself.

    Attributes:
        client: Key that our proof is made with.
        stored: Its hash, which is what the server keeps of it.
        server: Key that the server's proof is made with.
    """

    client: bytes
    stored: bytes
    server: bytes

    def __repr__(self) -> str:
        return "Keys(…)"


# By hash of the password, salt, rounds; the oldest goes first.
_KEPT: Final[OrderedDict[tuple[bytes, bytes, int], Keys]] = OrderedDict()


def keys_of(password: str, salt: bytes, rounds: int) -> Keys:
    """Derive the keys, or remember them."""
    prepared = prepare(password).encode()
    name = hashlib.sha256(prepared).digest(), salt, rounds
    found = _KEPT.get(name)
    if found is not None:
        _KEPT.move_to_end(name)
        return found
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, rounds)
    client = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    keys = Keys(client, hashlib.sha256(client).digest(), server)
    _KEPT[name] = keys
    if len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return keys


class Scram:
    """One exchange: `first`, then `answer`, then `verify`.

    Attributes:
        is_proven: Whether the server has shown that it knows the password, too.
    """

    def __init__(self, password: str, nonce: str | None = None, user: str = "") -> None:
        """Begin an exchange.

        Args:
            nonce: Text that is never used twice. None: a random one.
            user: PostgreSQL takes the user of the startup message instead.
        """
        self._password = password
        random = base64.b64encode(os.urandom(_NONCE_BYTES)).decode()
        self._nonce = nonce or random
        self._bare = f"n={user},r={self._nonce}"
        self._expected = b""
        self.is_proven = False

    def first(self) -> bytes:
        """Say what goes first, from us."""
        return (_NO_BINDING + self._bare).encode()

    def answer(self, challenge: bytes) -> bytes:
        """Answer the server's challenge with our proof.

        Raises:
            ScramError: It is none.
        """
        said = _fields(challenge)
        nonce, salt, rounds = _challenge(said)
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ScramError("the server answered somebody else's login")
        keys = keys_of(self._password, salt, rounds)
        bare = f"c={_NO_BINDING_CODED},r={nonce}"
        signed = b"%s,%s,%s" % (self._bare.encode(), challenge, bare.encode())
        signature = hmac.digest(keys.stored, signed, "sha256")
        self._expected = hmac.digest(keys.server, signed, "sha256")
        proof = base64.b64encode(_xor(keys.client, signature)).decode()
        return f"{bare},p={proof}".encode()

    def verify(self, outcome: bytes) -> None:
        """Check that the server knows the password, too.

        Raises:
            ScramError: It does not.
        """
        said = _fields(outcome)
        signature = _decoded(said.get("v", ""))
        if not self._expected or not hmac.compare_digest(signature, self._expected):
            raise ScramError("the server could not prove that it knows the password")
        self.is_proven = True


def _fields(message: bytes) -> dict[str, str]:
    text = message.decode("utf-8", "replace")
    return {part[:1]: part[2:] for part in text.split(",") if part[1:2] == "="}


def _challenge(said: dict[str, str]) -> tuple[str, bytes, int]:
    nonce, salt, rounds = said.get("r", ""), said.get("s", ""), said.get("i", "")
    if not nonce or not salt or not (rounds.isascii() and rounds.isdecimal()):
        raise ScramError("the server's challenge is incomplete")
    if not 1 <= len(rounds) <= 10 or not 1 <= int(rounds) <= _MOST_ROUNDS:
        raise ScramError(f"the server wants more than {_MOST_ROUNDS} rounds of hashing")
    return nonce, _decoded(salt), int(rounds)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ScramError("what the server sent is not base64") from None


def _xor(one: bytes, other: bytes) -> bytes:
    mixed = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return mixed.to_bytes(len(one), "big")


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """Answer the server's md5 challenge."""
    # The names of the hashes are PostgreSQL's choice; it deprecated them itself.
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False)
    outer = hashlib.md5(inner.hexdigest().encode() + salt, usedforsecurity=False)
    return b"md5" + outer.hexdigest().encode()


# https://datatracker.ietf.org/doc/html/rfc4013#section-2.3
_PROHIBITED: Final = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare(password: str) -> str:
    """Bring a password into the form that is hashed (SASLprep).

    One that may not be brought there is taken as it is, as the server takes it.
    """
    if password.isascii():
        return password
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in password
        if not stringprep.in_table_b1(c)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not normal or any(test(c) for c in normal for test in _PROHIBITED):
        return password
    return normal if _is_one_way(normal) else password


def _is_one_way(text: str) -> bool:
    """Whether *text* does not mix scripts of both directions."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    if any(map(stringprep.in_table_d2, text)):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
