"""The bill of materials of the daemon, in CycloneDX's JSON; the same for the same parts."""

import hashlib
import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release.tree import ROOT, ReleaseError, run, version


def write_bom(wheel: Path, python: Path, into: Path) -> int:
    """Write what *wheel* is installed with to *into*.

    Args:
        python: Of an environment that it is installed in, with nothing else.

    Returns:
        How many packages there are beside it.

    Raises:
        ReleaseError: It cannot be made, or is not valid.
    """
    said = run(
        *(Path(sys.executable).with_name("cyclonedx-py"), "environment", python),
        *("--pyproject", ROOT / "pyproject.toml", "--mc-type", "application"),
        *("--of", "JSON", "--sv", "1.6", "--output-reproducible", "--validate"),
    )
    bom = json.loads(said)
    # In pyproject.toml the version is not written out.
    bom["metadata"]["component"] |= {
        "version": version(),
        "purl": f"pkg:pypi/pgbreaker@{version()}",
        "hashes": [
            {
                "alg": "SHA-256",
                "content": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            }
        ],
    }
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ReleaseError(f"the bill of materials is not valid: {wrong.data}")
    into.write_text(text, "utf-8")
    return len(bom["components"])
