"""What a server, its roles and our own files lack, and what would help.

Everything here is read-only, each question has a deadline of its own, and one that
fails leaves the others to be asked.
"""

import asyncio
import os
import re
import resource
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.postgres.dsn import Address, password_in, resolve
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.tls import MODES
from pgbreaker.postgres.wire import Wire

WITHIN: Final[Seconds] = 5.0
"""Seconds for a login, and for each question."""

_SKEW: Final[Seconds] = 1.0
_FORGOTTEN: Final[Seconds] = 600.0  # a client that is gone, kept for longer than this
_FULL: Final = 0.8
_NAMED: Final = 5  # roles that a line names; --output json has them all
_FILES_A_TARGET: Final = 6  # descriptors: three connections, and as many being made


class Level(StrEnum):
    """How bad something is."""

    WRONG = "wrong"  # it will hurt, or it hurts now
    WEAK = "weak"  # it would be better otherwise


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that is not as it should be.

    Attributes:
        about: Name of the target; or what else it is about.
        code: One word for it, for programs.
        level: How bad it is.
        text: What is wrong and what comes of it, in one sentence.
        helps: What would help, each a line to type or to write.
    """

    about: str
    code: str
    level: Level
    text: str
    helps: tuple[str, ...] = ()


# -- Files and addresses -----------------------------------------------------------


def look_around(plans: Sequence[TargetPlan], config: Path | None) -> list[Complaint]:
    """What can be said without asking anybody.

    Args:
        config: The file that *plans* are from. None: there is none.
    """
    found: list[Complaint] = []
    if config is not None and any(_has_password(plan) for plan in plans):
        found += _readable(config, "the configuration, which holds a password,")
    for plan in plans:
        found += _of_address(plan)
    needs = 64 + _FILES_A_TARGET * len(plans)
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < needs:
        found.append(
            Complaint(
                "this machine",
                "open_files",
                Level.WRONG,
                f"{allowed} open files are allowed, and {len(plans)} targets need up"
                f" to {needs}",
                (f"LimitNOFILE={2 * needs}  (in the unit of systemd)",),
            )
        )
    return found


def _has_password(plan: TargetPlan) -> bool:
    """Whether the address itself holds its password."""
    address = plan.dsn.reveal()
    return (
        "password=" in address or ":" in address.partition("://")[2].rpartition("@")[0]
    )


def _of_address(plan: TargetPlan) -> Iterator[Complaint]:
    try:
        there = resolve(plan.dsn.reveal(), password="")
    except (ValueError, KeyError, OSError) as error:
        yield Complaint(plan.name, "address", Level.WRONG, str(error))
        return
    if plan.password_file is not None:
        yield from _readable(plan.password_file, "the password file", plan.name)
    elif not _has_password(plan):
        passfile = Path(os.environ.get("PGPASSFILE") or "~/.pgpass").expanduser()
        for complaint in _readable(passfile, "the password file", plan.name):
            text = f"{complaint.text}, and so it is not read at all"
            yield Complaint(
                plan.name, complaint.code, Level.WRONG, text, complaint.helps
            )
    if there.tls.key is not None:
        key = Path(there.tls.key).expanduser()
        yield from _readable(key, "the key of our certificate", plan.name)
    if not _is_here(there) and not there.tls.is_at_least("verify-full"):
        mode = there.tls.mode
        what = (
            "the password and every row can be read on the way"
            if MODES.index(mode) < MODES.index("require")
            else "somebody on the way can pass for the server"
        )
        yield Complaint(
            plan.name,
            "sslmode",
            Level.WEAK,
            f"sslmode={mode} to {there.host}: {what}",
            ("sslmode=verify-full&sslrootcert=/path/to/root.crt  (in the dsn)",),
        )


def _is_here(there: Address) -> bool:
    return there.socket is not None or there.host in ("localhost", "127.0.0.1", "::1")


def _readable(
    path: Path, what: str, about: str = "this machine"
) -> Iterator[Complaint]:
    """Complain of a file that others than its owner can read."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # whoever needs it complains in its own words
    if not stat.S_ISREG(mode) or not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    is_all = bool(mode & stat.S_IRWXO)
    yield Complaint(
        about,
        "file_mode",
        Level.WRONG if is_all else Level.WEAK,
        f"{what} {path} can be read by {'everybody' if is_all else 'its group'}",
        (f"chmod 600 {path}",),
    )


# -- The server --------------------------------------------------------------------

Rows: TypeAlias = Sequence[Mapping[str, str | None]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is known of a server when its answers are judged.

    Attributes:
        plan: How it is watched.
        settings: Name -> what a new session of ours has, of those we may see.
        sources: Name -> where that is from, in PostgreSQL's words.
        in_recovery: Whether it is a replica.
        major: Its major version.
    """

    plan: TargetPlan
    settings: Mapping[str, str]
    sources: Mapping[str, str]
    in_recovery: bool
    major: int

    @property
    def elsewhere(self) -> frozenset[str]:
        """Names whose value is our own role's or database's and so says nothing of
        others."""
        return frozenset(name for name, of in self.sources.items() if of in _OWN)

    def complain(self, code: str, level: Level, text: str, *helps: str) -> Complaint:
        # ALTER SYSTEM has to come alone.
        helps = tuple(line for text in helps for line in _STATEMENTS_OF.split(text))
        if self.in_recovery:
            helps = tuple(
                f"{line}  (on its primary)" if line.startswith(_ON_PRIMARY) else line
                for line in helps
            )
        return Complaint(self.plan.name, code, level, text, helps)


_OWN: Final = ("user", "database", "database user", "client", "session")
_STATEMENTS_OF: Final = re.compile(r"(?<=;) (?! *--)")
_ON_PRIMARY: Final = ("ALTER ROLE", "CREATE", "GRANT", "REVOKE")

_WATCHED: Final = (
    *("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"),
    *("tcp_keepalives_idle", "tcp_user_timeout", "client_connection_check_interval"),
    *("track_io_timing", "track_activities", "track_counts", "log_lock_waits"),
    *("fsync", "full_page_writes", "autovacuum", "password_encryption"),
    *("max_connections", "superuser_reserved_connections", "reserved_connections"),
    *("shared_preload_libraries", "server_version_num"),
    "default_transaction_read_only",
)
_SETTINGS: Final = f"""
SELECT name, reset_val AS value, source, pg_is_in_recovery()::text AS in_recovery
  FROM pg_settings
 WHERE name IN ({", ".join(f"'{name}'" for name in _WATCHED)})
"""

_ROLE: Final = """
SELECT quote_ident(r.rolname) AS role, quote_ident(current_database()) AS here,
       r.rolsuper, r.rolcreaterole, r.rolcreatedb,
       r.rolreplication, r.rolbypassrls, r.rolconnlimit,
       pg_has_role(r.oid, 'pg_monitor', 'USAGE') AS is_monitor,
       (SELECT string_agg(m.rolname, ', ' ORDER BY m.rolname)
          FROM pg_roles AS m
         WHERE m.rolname IN ('pg_write_all_data', 'pg_read_all_data',
                             'pg_execute_server_program', 'pg_write_server_files',
                             'pg_read_server_files', 'pg_use_reserved_connections')
           AND pg_has_role(r.oid, m.oid, 'MEMBER')) AS besides
  FROM pg_roles AS r
 WHERE r.rolname = current_user
"""

# A role's settings here, the less special first: a later one goes before it.
_APPLICATIONS: Final = """
SELECT quote_ident(r.rolname) AS role,
       (SELECT string_agg(line, E'\\n' ORDER BY rank)
          FROM (SELECT unnest(s.setconfig) AS line,
                       (s.setrole <> 0)::int * 2 + (s.setdatabase <> 0)::int AS rank
                  FROM pg_db_role_setting AS s
                 WHERE s.setrole IN (0, r.oid)
                   AND s.setdatabase IN (0, (SELECT oid FROM pg_database
                                              WHERE datname = current_database()))
               ) AS lines) AS settings
  FROM pg_roles AS r
 WHERE r.rolcanlogin AND NOT r.rolsuper AND NOT r.rolreplication
   AND r.rolname <> current_user AND r.rolname NOT LIKE 'pg\\_%'
   AND has_database_privilege(r.oid, current_database(), 'CONNECT')
 ORDER BY (SELECT count(*) FROM pg_stat_activity AS a WHERE a.usesysid = r.oid) DESC,
          r.rolname
"""

_STATEMENTS: Final = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')
       AS is_there,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements')
       AS is_to_be_had
"""

_TLS: Final = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
_SLOTS: Final = "SELECT sum(numbackends) AS used FROM pg_stat_database"
_CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::text AS now"


async def ask(
    plan: TargetPlan, clock: Clock | None = None, *, within: Seconds = WITHIN
) -> list[Complaint]:
    """Ask one server what it lacks.

    Args:
        within: Seconds for the login, and for each question.
    """
    clock = clock or Clock()
    try:
        async with asyncio.timeout(within):
            wire = await Wire.connect(
                plan.dsn.reveal(),
                password=password_in(plan.password_file),
                settings={"application_name": "pgbreaker/doctor"},
            )
    except Exception as error:  # noqa: BLE001 - not being let in is a finding
        return [_unheard(plan, "login", error)]
    try:
        return await _Examination(plan, wire, clock, within).run()
    finally:
        await wire.close()


async def ask_all(
    plans: Iterable[TargetPlan], *, within: Seconds = WITHIN
) -> list[Complaint]:
    """Ask several servers at once; what they lack, in their order."""
    answers = await asyncio.gather(*(ask(plan, within=within) for plan in plans))
    return [complaint for answer in answers for complaint in answer]


def _unheard(plan: TargetPlan, what: str, error: Exception) -> Complaint:
    finding, evidence = read_failure(error, probe=what, connecting=what == "login")
    said = evidence.text or "no answer in time"
    return Complaint(
        plan.name,
        f"{what}_failed",
        Level.WRONG if what == "login" else Level.WEAK,
        f"the question for {what} ended {finding.value}: {said}"
        if what != "login"
        else f"we are not let in ({finding.value}): {said}",
        (f"pgbreaker probe {plan.name} --debug",),
    )


class _Examination:
    """The questions to one server, one after the other."""

    def __init__(
        self, plan: TargetPlan, wire: Wire, clock: Clock, within: Seconds
    ) -> None:
        self._plan = plan
        self._within = within
        self._wire = wire
        self._clock = clock
        self._found: list[Complaint] = []

    async def run(self) -> list[Complaint]:
        rows = await self._ask("settings", _SETTINGS, limit=False)
        if rows is None:
            return self._found
        asked = _asked(self._plan, rows)
        self._found += _of_settings(asked)
        for what, (sql, judge) in _QUESTIONS.items():
            rows = await self._ask(what, sql)
            if rows:
                self._found += judge(asked, rows)
        await self._compare_clocks(asked)
        return self._found

    async def _ask(self, what: str, sql: str, *, limit: bool = True) -> Rows | None:
        """Ask, in a transaction that may change nothing. None: no answer."""
        if not self._wire.is_open:
            return None
        # What is set here would hide what a session has by itself.
        own = (
            f"SET LOCAL statement_timeout = {self._within * 1000:.0f}; "
            if limit
            else ""
        )
        try:
            async with asyncio.timeout(self._within):
                return await self._wire.query(f"BEGIN READ ONLY; {own}{sql}\n; COMMIT")
        except Exception as error:  # noqa: BLE001 - one that fails leaves the others
            self._found.append(_unheard(self._plan, what, error))
        with suppress(OSError, EOFError):  # a session that is lost has ended it, too
            async with asyncio.timeout(self._within):
                await self._wire.query("ROLLBACK")
        return None

    async def _compare_clocks(self, asked: _Asked) -> None:
        before = self._clock.wall()
        rows = await self._ask("clock", _CLOCK)
        after = self._clock.wall()
        if not rows:
            return
        # It was read somewhere between, so that much is no skew.
        theirs = float(rows[0]["now"] or 0)
        skew = max(before - theirs, theirs - after)
        if skew > _SKEW:
            whose = "behind" if theirs < before else "ahead of"
            self._found.append(
                asked.complain(
                    "clock_skew",
                    Level.WRONG,
                    f"its clock is {lasting(skew)} {whose} ours: times in its log and"
                    " in our history do not fit together",
                    "chronyc tracking  (there and here)",
                )
            )


def _asked(plan: TargetPlan, rows: Rows) -> _Asked:
    settings = {str(row["name"]): row["value"] or "" for row in rows}
    return _Asked(
        plan,
        settings,
        {str(row["name"]): row["source"] or "" for row in rows},
        any(row["in_recovery"] in ("t", "true") for row in rows),
        int(settings.get("server_version_num") or 0) // 10_000,
    )


# What a setting should not be -> what comes of it, how bad that is, what helps.
_SHOULD: Final[Mapping[str, tuple[str, Level, str, str]]] = {
    "fsync": (
        "off",
        Level.WRONG,
        "fsync is off: when the machine fails, the data is lost",
        "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
    ),
    "full_page_writes": (
        "off",
        Level.WRONG,
        "full_page_writes is off: a page half written in a crash stays broken",
        "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();",
    ),
    "autovacuum": (
        "off",
        Level.WRONG,
        "autovacuum is off: tables bloat, and ids run out",
        "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf();",
    ),
    "track_activities": (
        "off",
        Level.WRONG,
        "track_activities is off: what sessions do and wait for is not seen",
        "ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();",
    ),
    "track_counts": (
        "off",
        Level.WRONG,
        "track_counts is off: autovacuum and the probe database see nothing",
        "ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf();",
    ),
    "client_connection_check_interval": (
        "0",
        Level.WEAK,
        (
            "client_connection_check_interval is 0: a statement goes on to its end though"
            " its client, timed out, has hung up"
        ),
        (
            "ALTER SYSTEM SET client_connection_check_interval = '10s'; SELECT"
            " pg_reload_conf();"
        ),
    ),
    "track_io_timing": (
        "off",
        Level.WEAK,
        "track_io_timing is off: whether the disk is what is slow cannot be told",
        "ALTER SYSTEM SET track_io_timing = on; SELECT pg_reload_conf();",
    ),
    "log_lock_waits": (
        "off",
        Level.WEAK,
        "log_lock_waits is off: who waited for whom is not in the server's log",
        "ALTER SYSTEM SET log_lock_waits = on; SELECT pg_reload_conf();",
    ),
    "password_encryption": (
        "md5",
        Level.WEAK,
        "password_encryption is md5: its hashes are as good as passwords",
        (
            "ALTER SYSTEM SET password_encryption = 'scram-sha-256'; SELECT"
            " pg_reload_conf();"
        ),
    ),
    "superuser_reserved_connections": (
        "0",
        Level.WRONG,
        "superuser_reserved_connections is 0: when it is full, nobody gets in to help",
        "ALTER SYSTEM SET superuser_reserved_connections = 3;  -- needs a restart",
    ),
}


def _of_settings(asked: _Asked) -> Iterator[Complaint]:
    for name, (bad, level, text, helps) in _SHOULD.items():
        if asked.settings.get(name) == bad and name not in asked.elsewhere:
            yield asked.complain(name, level, text, helps)
    idle = _number(asked.settings.get("tcp_keepalives_idle"))
    unheard = _number(asked.settings.get("tcp_user_timeout"))
    # 0 is the kernel's own: two hours.
    if idle is not None and not unheard and (idle == 0 or idle > _FORGOTTEN):
        kept = "two hours" if idle == 0 else lasting(idle)
        yield asked.complain(
            "tcp_keepalives_idle",
            Level.WEAK,
            f"tcp_keepalives_idle is {idle:.0f}: a client whose machine is gone keeps"
            f" its session, and its locks, for {kept} or more",
            "ALTER SYSTEM SET tcp_keepalives_idle = 60; ALTER SYSTEM SET"
            " tcp_keepalives_interval = 10; SELECT pg_reload_conf();",
        )
    if asked.in_recovery and "write" in asked.plan.operations:
        yield asked.complain(
            "replica",
            Level.WEAK,
            "it is a replica, and its breaker for writes is open for as long as it is",
            f"operations: [connect, read]  (of target {asked.plan.name})",
        )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _of_read_only(asked: _Asked, role: str, database: str) -> Iterator[Complaint]:
    """Where it is the server's, or the database's, that is so for applications, too."""
    name = "default_transaction_read_only"
    helps = {
        "user": f"ALTER ROLE {role} RESET {name};",
        "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET {name};",
        "client": f"no {name} among the options of the dsn",
    }.get(asked.sources.get(name, ""))
    if helps and asked.settings[name] == "on" and "commit" in asked.plan.probes:
        yield asked.complain(
            "read_only_role",
            Level.WRONG,
            f"{name} is on for our role {role} alone: the probe commit takes that for"
            " the server's word, and the breaker for writes opens while applications"
            " write",
            helps,
        )


def _of_role(asked: _Asked, rows: Rows) -> Iterator[Complaint]:
    (row,) = rows
    role = row["role"]
    yield from _of_read_only(asked, f"{role}", f"{row['here']}")
    if row["rolsuper"] == "t":
        yield asked.complain(
            "superuser",
            Level.WRONG,
            f"our role {role} is a superuser: it may do anything, and its logins"
            " succeed on reserved slots when those of applications fail",
            f"ALTER ROLE {role} NOSUPERUSER; GRANT pg_monitor TO {role};",
        )
        return
    if row["is_monitor"] != "t":
        yield asked.complain(
            "pg_monitor",
            Level.WRONG,
            f"our role {role} lacks pg_monitor: what others' sessions do is not seen",
            f"GRANT pg_monitor TO {role};",
        )
    for right in ("createrole", "createdb", "replication", "bypassrls"):
        if row[f"rol{right}"] == "t":
            yield asked.complain(
                "too_many_rights",
                Level.WEAK,
                f"our role {role} has {right.upper()}, which nothing here needs",
                f"ALTER ROLE {role} NO{right.upper()};",
            )
    for right in filter(None, (row["besides"] or "").split(", ")):
        is_reserved = right == "pg_use_reserved_connections"
        why = (
            "its logins succeed when those of applications fail for want of a slot"
            if is_reserved
            else "nothing here needs it"
        )
        yield asked.complain(
            "too_many_rights",
            Level.WRONG if is_reserved else Level.WEAK,
            f"our role {role} has {right}: {why}",
            f"REVOKE {right} FROM {role};",
        )
    limit = _number(row["rolconnlimit"])
    if limit is not None and 0 <= limit < 4:
        yield asked.complain(
            "connection_limit",
            Level.WRONG,
            f"our role {role} may have {limit:.0f} connections, and up to 4 are needed"
            " while something is wrong",
            f"ALTER ROLE {role} CONNECTION LIMIT 4;",
        )


# Limit -> what comes of having none, how bad that is, and a value to begin with.
_LIMITS: Final[Mapping[str, tuple[str, Level, str]]] = {
    "statement_timeout": (
        "one statement that never ends holds its session and its locks for ever",
        Level.WRONG,
        "30s",
    ),
    "idle_in_transaction_session_timeout": (
        "a client that forgets to commit holds its locks, and vacuum, for ever",
        Level.WRONG,
        "60s",
    ),
    "lock_timeout": (
        "who waits for a lock waits for ever, and everybody behind him",
        Level.WEAK,
        "5s",
    ),
}


def _of_applications(asked: _Asked, rows: Rows) -> Iterator[Complaint]:
    for name, (comes, level, value) in _LIMITS.items():
        usual = asked.settings.get(name, "0")
        is_known = name not in asked.elsewhere
        without = [
            str(row["role"])
            for row in rows
            if _limit_of(row["settings"], name, usual if is_known else "0") in _NONE
        ]
        if not without:
            continue
        named = ", ".join(without[:_NAMED])
        more = f" and {len(without) - _NAMED} more" if len(without) > _NAMED else ""
        yield asked.complain(
            name,
            level,
            f"{named}{more} {'has' if len(without) == 1 else 'have'} no {name}, unless"
            f" a client sets it: {comes}",
            *(f"ALTER ROLE {role} SET {name} = '{value}';" for role in without),
        )


_NONE: Final = ("0", "0s", "0ms", "0min", "")


def _limit_of(settings: str | None, name: str, usual: str) -> str:
    """What a role has of a setting: its own, its database's, or the server's."""
    found = usual
    for line in (settings or "").splitlines():
        key, _, value = line.partition("=")
        if key == name:
            found = value
    return found


def _of_statements(asked: _Asked, rows: Rows) -> Iterator[Complaint]:
    (row,) = rows
    loaded = asked.settings.get("shared_preload_libraries")
    if loaded is not None and "pg_stat_statements" not in loaded:
        libraries = ",".join(filter(None, (loaded, "pg_stat_statements")))
        yield asked.complain(
            "pg_stat_statements",
            Level.WEAK,
            "pg_stat_statements is not loaded: which statements became slow cannot be"
            " told",
            f"ALTER SYSTEM SET shared_preload_libraries = '{libraries}';  -- needs a"
            " restart",
        )
    if row["is_there"] != "t":
        have = "" if row["is_to_be_had"] == "t" else "  -- of postgresql-contrib"
        yield asked.complain(
            "pg_stat_statements",
            Level.WEAK,
            "the extension pg_stat_statements is not in this database: the probe"
            " statements sees nothing",
            f"CREATE EXTENSION pg_stat_statements;{have}",
        )


def _of_tls(asked: _Asked, rows: Rows) -> Iterator[Complaint]:
    there = resolve(asked.plan.dsn.reveal(), password="")
    if rows[0]["ssl"] != "t" and not _is_here(there):
        yield asked.complain(
            "no_tls",
            Level.WRONG,
            f"our connection to {there.host} is not encrypted: the password and every"
            " row can be read on the way",
            "ALTER SYSTEM SET ssl = on;  -- with ssl_cert_file and ssl_key_file",
        )


def _of_slots(asked: _Asked, rows: Rows) -> Iterator[Complaint]:
    used, most = _number(rows[0]["used"]), _number(asked.settings["max_connections"])
    reserved = sum(
        _number(asked.settings.get(name)) or 0.0
        for name in ("superuser_reserved_connections", "reserved_connections")
    )
    if used is None or most is None or most <= reserved:
        return
    if used / (most - reserved) >= _FULL:
        yield asked.complain(
            "nearly_full",
            Level.WRONG,
            f"{used:.0f} of {most - reserved:.0f} usable connections are taken",
            "SELECT usename, application_name, state, count(*) FROM pg_stat_activity"
            " GROUP BY 1, 2, 3 ORDER BY 4 DESC;",
        )


_Judge: TypeAlias = Callable[[_Asked, Rows], Iterable[Complaint]]

_QUESTIONS: Final[Mapping[str, tuple[str, _Judge]]] = {
    "role": (_ROLE, _of_role),
    "applications": (_APPLICATIONS, _of_applications),
    "statements": (_STATEMENTS, _of_statements),
    "tls": (_TLS, _of_tls),
    "slots": (_SLOTS, _of_slots),
}
