"""Checksums of what is released, and a signature over them by a key of SSH.

Whoever downloads it checks both:

    sha256sum --check SHA256SUMS
    ssh-keygen -Y verify -f allowed_signers -I WHO -n pgbreaker -s SHA256SUMS.sig < SHA256SUMS

`allowed_signers` is a line: WHO, and the public key as the project gives it out.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from release.tree import run

NAMESPACE = "pgbreaker"
"""A signature made for something else is none for this."""


def write_sums(files: Iterable[Path], into: Path) -> Path:
    """Write the checksums of *files*, which stand beside it, into the folder *into*."""
    lines = (
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(files)
    )
    sums = into / "SHA256SUMS"
    sums.write_text("".join(lines), "utf-8")
    sums.with_name(f"{sums.name}.sig").unlink(missing_ok=True)
    return sums


def sign(sums: Path, key: Path) -> Path:
    """Sign *sums* with the private *key*; gives the signature.

    Raises:
        ReleaseError: ssh-keygen cannot.
    """
    run("ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, sums)
    return sums.with_name(f"{sums.name}.sig")
