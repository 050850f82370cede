"""What is released: packages that are the same whoever builds them and that work where
nothing else is, with what is known of their parts."""

import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from release.audit import judge
from release.bom import write_bom
from release.building import astray, build, metadata, unpack
from release.installing import PYTHONS, Clean, find_python, missing_python, try_out
from release.lock import check_lock, locked
from release.publishing import refusal
from release.ready import named_versions, obstacles
from release.sums import sign, write_sums
from release.tree import ROOT, snapshot, version
from support.servers import running_server
from support.tools import need

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The tree as it is, by itself: no history, nothing that tools left behind."""
    return snapshot(tmp_path_factory.mktemp("release") / "tree")


@pytest.fixture(scope="module")
def built(tree):
    return build(tree, tree.with_name("dist"))


@pytest.fixture(scope="module")
def dsn():
    """Of a server that is up."""
    with running_server(17) as server:
        yield server.dsn(user="pgbreaker", database="app")


def same(ours, theirs) -> list[bool]:
    return [a.read_bytes() == b.read_bytes() for a, b in zip(ours, theirs, strict=True)]


# -- Packages ----------------------------------------------------------------------


def test_whoever_builds_it_elsewhere_later_with_another_umask_gets_the_same(
    tree, built, tmp_path, monkeypatch
):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    before = os.umask(0o077)
    try:
        elsewhere = snapshot(tmp_path / "a longer/path", tree)
        for path in elsewhere.rglob("*"):
            os.utime(path, (1e9, 1e9))
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o700)
        again = build(elsewhere, tmp_path / "dist")
    finally:
        os.umask(before)

    assert same(built, again) == [True, True]


def test_the_sdist_alone_gives_the_same_packages(built, tmp_path):
    packaged = build(unpack(built.sdist, tmp_path), tmp_path / "dist")

    assert same(built, packaged) == [True, True]


def test_nothing_is_missing_in_the_packages_and_nothing_is_there_for_nothing(
    tree, built
):
    """The sdist is all of the tree, so `make test` runs in it; the wheel has no tests."""
    assert astray(built, tree) == []


def test_what_is_in_a_package_for_nothing_is_seen(tree, built):
    stray = tree / "daemon/pgbreaker/py.typed"
    text = stray.read_text()
    stray.unlink()
    try:
        found = astray(built, tree)
    finally:
        stray.write_text(text)

    assert "pgbreaker/py.typed is in the wheel for nothing" in found
    assert "daemon/pgbreaker/py.typed is in the sdist for nothing" in found


def test_the_metadata_are_what_an_index_takes(built):
    found = metadata(built.wheel)

    assert (found.name, str(found.version)) == (PROJECT["name"], version())
    assert found.description_content_type == "text/markdown"
    assert found.license_expression == PROJECT["license"]
    assert set(found.provides_extra) == set(PROJECT["optional-dependencies"])
    assert not [r for r in found.requires_dist if r.marker is None]


def test_the_sdist_builds_with_no_repository_around_it(built):
    with tarfile.open(built.sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}

    assert not any(name == ".git" or name.startswith(".git/") for name in names)
    assert {"Makefile", "docker-compose.yml", "tests/README.md"} <= names


@pytest.mark.parametrize("wanted", PYTHONS)
def test_it_works_where_nothing_else_is_installed(built, wanted, tmp_path, dsn):
    """The library with no package beside it, the daemon with those that are locked."""
    interpreter = find_python(wanted)
    if interpreter is None:
        # Debian 12 has 3.11 alone; `make release` insists on each.
        pytest.skip(missing_python(wanted))

    said = try_out(tmp_path / "venv", interpreter, built.wheel, dsn)

    assert [line.split(",")[0] for line in said] == [
        f"library {version()}",
        f"daemon {version()}",
    ]


# -- What it consists of -----------------------------------------------------------


def test_the_lock_is_what_the_project_asks_for():
    check_lock()


def test_each_file_of_each_package_is_locked_by_its_hash():
    text = (ROOT / "daemon/requirements.lock").read_text("utf-8")
    entries = [e for e in text.split("\n") if e and not e.lstrip().startswith("#")]
    names = [e for e in entries if not e.startswith(" ")]

    assert len(names) == len(locked())
    assert text.count("--hash=sha256:") >= len(names)
    for first, after in itertools.pairwise(entries):
        assert first.startswith(" ") or after.startswith("    --hash=sha256:")


def test_the_bill_of_materials_is_valid_and_tells_nothing_of_who_made_it(
    built, tmp_path
):
    clean = Clean(tmp_path / "venv", Path(sys.executable))
    clean.install_daemon(built.wheel)
    file = tmp_path / "bom.json"
    write_bom(built.wheel, clean.python, file)
    text = file.read_text("utf-8")
    bom = json.loads(text)

    # So it is the same wherever and whenever it is made; `make release` makes it twice.
    assert str(tmp_path) not in text
    assert not {"serialNumber", "timestamp"} & {*bom, *bom["metadata"]}
    assert bom["metadata"]["component"]["version"] == version()
    named = {re.sub(r"[-_.]+", "-", c["name"]).lower() for c in bom["components"]}
    elsewhere = {"tzdata"}  # that is Windows'
    if sys.version_info >= (3, 11, 3):
        elsewhere.add("async-timeout")
    assert named == locked().keys() - elsewhere


AUDITED = {"name": "one", "version": "1.0", "vulns": []}
SKIPPED = {"name": "two", "skip_reason": "not found"}
WEAK = {
    "name": "three",
    "version": "3.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.1"]}],
}
UNKNOWN = "no advisories could be had for 1 of {}, so nothing is known of them (two: not found)"


@pytest.mark.parametrize(
    ("packages", "passed", "said"),
    [
        ([AUDITED], True, "1 package, no known weakness"),
        ([SKIPPED], False, UNKNOWN.format("1 package")),
        ([AUDITED, SKIPPED], False, UNKNOWN.format("2 packages")),
        ([AUDITED, SKIPPED, WEAK], False, "three 3.0: PYSEC-1, CVE-1; mended in 3.1"),
        ([], False, "0 packages, no known weakness"),
    ],
    ids=["clean", "no advisories", "some advisories", "weak", "nothing"],
)
def test_an_audit_passes_only_when_everything_was_looked_at(packages, passed, said):
    """pip-audit itself finds no weakness, and ends well, where it found no advisories."""
    found = judge({"dependencies": packages})

    assert found.passed is passed
    assert str(found).splitlines()[-1] == said


# -- What vouches for it -----------------------------------------------------------


@pytest.fixture
def signed(built, tmp_path):
    """Checksums, signed by a key made for it, and who may sign."""
    keygen = need("ssh-keygen", "openssh-client")
    subprocess.run(
        [keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True
    )
    public = (tmp_path / "key.pub").read_text("utf-8")
    (tmp_path / "allowed_signers").write_text(f"us@example.org {public}", "utf-8")
    sums = write_sums(built, built.wheel.parent)
    sign(sums, tmp_path / "key")
    return sums, tmp_path / "allowed_signers"


def verify(sums: Path, signers: Path, namespace: str = "pgbreaker") -> bool:
    done = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "us@example.org"),
            *("-n", namespace, "-s", f"{sums}.sig"),
        ],
        input=sums.read_bytes(),
        capture_output=True,
    )
    return done.returncode == 0


def test_the_signature_holds_for_these_sums_and_no_others(signed):
    sums, signers = signed

    assert verify(sums, signers)
    assert not verify(sums, signers, "something else")
    sums.write_text(sums.read_text("utf-8").replace("a", "b", 1), "utf-8")
    assert not verify(sums, signers)


def test_the_sums_hold_as_people_check_them(signed):
    sums, _ = signed
    check = ["sha256sum", "--check", "--strict", sums.name]

    done = subprocess.run(check, cwd=sums.parent, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 2


def test_one_version_is_named_everywhere():
    """A compose file or a chart that is left behind would run the version before."""
    found = dict(named_versions())

    assert "docker-compose.yml" in found
    assert set(found.values()) == {version()}


# -- Publishing --------------------------------------------------------------------

WANTED = {"PUBLISH": "yes", "SIGNING_KEY": "key", "TWINE_USERNAME": "us"}


@pytest.mark.parametrize(
    ("failed", "lacks", "tagged", "said"),
    [
        (["audit: weak"], None, True, "not to be published yet:\n  audit: weak"),
        ([], "PUBLISH", True, "PUBLISH=yes does it"),
        ([], None, False, "the version has no tag"),
        ([], "SIGNING_KEY", True, "what is published is signed (SIGNING_KEY=FILE)"),
        ([], "TWINE_USERNAME", True, "no index is configured"),
    ],
    ids=["in the way", "not asked for", "no tag", "not signed", "no index"],
)
def test_nothing_is_published_unless(tmp_path, failed, lacks, tagged, said):
    env = {name: value for name, value in WANTED.items() if name != lacks}

    assert said in str(refusal(failed, env, tmp_path, tagged=tagged))


def test_what_is_whole_asked_for_and_signed_is_published_as_the_user_configured(
    tmp_path,
):
    (tmp_path / ".pypirc").touch()
    env = {name: WANTED[name] for name in ("PUBLISH", "SIGNING_KEY")}

    assert refusal([], WANTED, tmp_path / "nobody", tagged=True) is None
    assert refusal([], env, tmp_path, tagged=True) is None


def test_a_tree_that_is_not_ready_says_all_that_is_missing(tree):
    """Of another version than its changelog, its compose file and its fixtures."""
    module = tree / "daemon/pgbreaker/__init__.py"
    text = module.read_text("utf-8")
    module.write_text(text.replace(f'"{version()}"', '"99.0.0"'), "utf-8")
    try:
        found = obstacles(tree)
    finally:
        module.write_text(text, "utf-8")

    assert found[0] == "CHANGELOG.md has no heading for 99.0.0 (## 99.0.0 - date)"
    assert f"docker-compose.yml names version {version()}, and this is 99.0.0" in found
    assert any(line.startswith("tests/fixtures/99.0.0 is not there") for line in found)
    assert any("no clone of the repository" in line for line in found)
