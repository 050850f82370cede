"""The shapes that the API speaks in, by JSON Schema: a literal, so that it can be read."""

from typing import Any, Final

from pgbreaker.core.advice import Opinion
from pgbreaker.core.entry import Kind
from pgbreaker.core.forecast.warning import KINDS
from pgbreaker.core.reading import Finding
from pgbreaker.core.report import APPLICATION, INSTANCE, OUTCOMES, By
from pgbreaker.core.report import MOST as MOST_BREAKERS
from pgbreaker.core.states import OVERRIDES, Cause, State
from pgbreaker.sinks.board import Condition
from pgbreaker.web.api.asked import DURATION, DURATION_LENGTH, LAST_ID
from pgbreaker.web.api.orders import STATES

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
NUMBER: Final[Schema] = {"type": "number"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
YES: Final[Schema] = {"type": "boolean"}
ID: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": LAST_ID}
DURATION_TEXT: Final[Schema] = {
    "type": "string",
    "pattern": f"^{DURATION}$",
    "maxLength": DURATION_LENGTH,
    "examples": ["30m", "1h30m"],
}


def ref(name: str) -> Schema:
    """The shape of this name."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """This, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def some(schema: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": schema}


def by_name(schema: Schema) -> Schema:
    """Values of any name."""
    return {"type": "object", "additionalProperties": schema}


def shape(about: str, optional: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    """An object of which all fields are there, but the *optional* ones.

    Programs are to take more than is listed here: a later version may say more.
    """
    return {
        "type": "object",
        "description": about,
        "properties": fields,
        "required": [name for name in fields if name not in optional],
    }


def asked(about: str, needs: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    """A body that is sent: what is not listed here is refused."""
    return {
        "type": "object",
        "description": about,
        "properties": fields,
        "required": list(needs),
        "additionalProperties": False,
    }


def one_of(words: Any) -> Schema:  # noqa: ANN401 - an enum, or several of its members
    """A word of a list that is closed."""
    return {"type": "string", "enum": [str(word) for word in words]}


def described(schema: Schema, description: str) -> Schema:
    """This, with what there is to say of it."""
    return {**schema, "description": description}


_STATE: Final = one_of(State)
_COMPUTED: Final = one_of((State.CLOSED, State.OPEN, State.HALF_OPEN))
_REASON: Final[Schema] = {"type": "string", "minLength": 5, "maxLength": 500}
_AUTHOR: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 100,
    "description": "Who it is; used where nobody has logged in.",
}
_LINK: Final[Schema] = {
    "type": "string",
    "format": "uri-reference",
    "description": "Relative to the address that was asked.",
}

_SEAL: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_EVENT: Final[dict[str, Schema]] = {
    "id": ID,
    "time": TIME,
    "kind": one_of(Kind),
    "target": nullable(TEXT),
    "breaker": nullable(TEXT),
    "text": TEXT,
    "author": nullable(TEXT),
    "details": by_name({}),
}

_SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
# Not an enum: a later version may warn of more.
_OF: Final[Schema] = {"type": "string", "examples": list(KINDS)}
_LEFT: Final[dict[str, Schema]] = {
    "seconds": described(
        nullable(SECONDS), "Until it ends, at the rate of late; null: no end in sight."
    ),
    "soonest_seconds": described(
        nullable(SECONDS), "By the steepest rate that was seen, nine times of ten."
    ),
    "latest_seconds": described(
        nullable(SECONDS), "By the flattest; null: perhaps never."
    ),
}

_VERSION: Final = shape("Larger is later, within an epoch.", epoch=TEXT, seq=COUNT)

_CROWD: Final[dict[str, Schema]] = {
    "processes": COUNT,
    "open": COUNT,
    **{f"by_{by.value}": COUNT for by in By},
    "text": TEXT,
}
_TOLD: Final[dict[str, Schema]] = {
    "name": TEXT,
    "follows": {
        **nullable(TEXT),
        "description": "The daemon's breaker whose advice it takes; null: none.",
    },
    "state": _STATE,
    "computed_state": _STATE,
    "by": {
        **nullable(one_of(By)),
        "description": "Who holds it where calls do not pass; null: they do.",
    },
    "reason": TEXT,
    "calls": {
        "type": "object",
        "description": "Outcome to calls since the process began.",
        "properties": dict.fromkeys(OUTCOMES, COUNT),
    },
}

SCHEMAS: Final[dict[str, Schema]] = {
    # What goes wrong.
    "Problem": shape(
        "An error as RFC 9457 has it.",
        ("errors",),
        type=TEXT,
        title=TEXT,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail=TEXT,
        errors=some(shape("What is wrong with a field.", field=TEXT, detail=TEXT)),
    ),
    # What is true now.
    "Breaker": shape(
        "One breaker; what callers feel is `state`, what the machine decided is"
        " `computed_state`.",
        name=TEXT,
        target=TEXT,
        operation=TEXT,
        state=_STATE,
        computed_state=_COMPUTED,
        since=TIME,
        reason=TEXT,
        cause=shape(
            "Why the machine moved last, and what it saw.",
            ("finding",),
            code=nullable(one_of(Cause)),
            sqlstate=nullable(TEXT),
            probe=nullable(TEXT),
            finding=nullable(TEXT),
        ),
        retry_after_seconds=SECONDS,
        override=nullable(ref("Override")),
        version=_VERSION,
        window=shape(
            "The last calls that count.",
            total=COUNT,
            failed=COUNT,
            slow=COUNT,
            failure_ratio=NUMBER,
            slow_ratio=NUMBER,
        ),
        totals=by_name(COUNT),
        fleet=nullable(ref("Ballot")),
        applications={
            **nullable(ref("Applications")),
            "description": "What applications report of it; null: none does.",
        },
    ),
    "Ballot": shape(
        "What the daemons that share an engine think of the breaker; null where this one"
        " is the only one.",
        opinion=one_of(Opinion),
        open={**COUNT, "description": "Daemons that see it open."},
        voters={**COUNT, "description": "Daemons that watch it."},
        needed={**COUNT, "description": "That have to see it open."},
        minority=some(TEXT),
        views=some(
            shape(
                "What one daemon thinks.",
                daemon=TEXT,
                opinion=one_of(Opinion),
                state=_COMPUTED,
                reason=TEXT,
                sqlstate=nullable(TEXT),
            )
        ),
    ),
    "Applications": shape(
        "The processes that take the advice of a breaker, and report: in how many calls"
        " do not pass, and who holds them back. It moves no breaker here.",
        **_CROWD,
    ),
    "Override": shape(
        "An operator's word, which goes before the breaker's own.",
        state=one_of(OVERRIDES),
        reason=TEXT,
        author=TEXT,
        until=nullable(TIME),
    ),
    "Advice": shape(
        "What applications are told of one kind of work on a target.",
        breaker=TEXT,
        opinion=one_of(Opinion),
        reason=TEXT,
        sqlstate=nullable(TEXT),
        authoritative=YES,
        version=_VERSION,
        lease_seconds=SECONDS,
        override=nullable(
            shape(
                "The word of an operator, which goes before it.",
                state=one_of(OVERRIDES),
                reason=TEXT,
                author=TEXT,
                seconds_left=SECONDS,
            )
        ),
    ),
    "Advices": shape(
        "Advice, and for how long it holds.",
        version=_VERSION,
        lease_seconds=SECONDS,
        spread_seconds=SECONDS,
        complete=YES,
        advice=some(ref("Advice")),
    ),
    "Report": shape(
        "How the breakers of one process are.",
        ("application",),
        instance={
            **TEXT,
            "minLength": 1,
            "maxLength": INSTANCE,
            "description": "Another for each process, also after a restart.",
        },
        application={
            **nullable(TEXT),
            "description": f"What people call the service; {APPLICATION} characters of"
            " it are kept.",
        },
        breakers={
            **some(
                shape(
                    "One breaker.",
                    ("follows", "computed_state", "by", "reason", "calls"),
                    **_TOLD,
                )
            ),
            "maxItems": MOST_BREAKERS,
        },
    ),
    "Reported": shape("When to tell again.", every_seconds=SECONDS),
    "Reports": shape(
        "What applications report.",
        processes=COUNT,
        every_seconds=SECONDS,
        breakers=some(
            shape(
                "What is reported of one of the daemon's breakers. `voices`: the newest"
                " of those that hold calls back.",
                breaker=TEXT,
                **_CROWD,
                voices=some(
                    shape(
                        "Why one process does not let calls pass.",
                        instance=TEXT,
                        application=nullable(TEXT),
                        breaker=TEXT,
                        by=one_of(By),
                        reason=TEXT,
                    )
                ),
            )
        ),
        instances=some(
            shape(
                "A process, and what it told last; `breakers` is null where there was no"
                " room to keep it.",
                instance=TEXT,
                application=nullable(TEXT),
                age_seconds=SECONDS,
                breakers=nullable(some(shape("One breaker.", **_TOLD))),
            )
        ),
    ),
    "Probe": shape(
        "A probe, and what it saw last.",
        name=TEXT,
        interval_seconds=SECONDS,
        timeout_seconds=SECONDS,
        last_success=nullable(TIME),
        last=nullable(
            shape(
                "Its last run.",
                at=TIME,
                outcome=one_of(Finding),
                took_seconds=SECONDS,
                sqlstate=nullable(TEXT),
                text=nullable(TEXT),
            )
        ),
    ),
    "Run": shape(
        "One run of a probe.",
        probe=TEXT,
        at=TIME,
        outcome=one_of(Finding),
        took_seconds=SECONDS,
        connecting_seconds=SECONDS,
        steps=by_name(SECONDS),
        sqlstate=nullable(TEXT),
        text=nullable(TEXT),
    ),
    "Runs": shape("The last runs, the newest first.", probes=some(ref("Run"))),
    "Forecast": shape(
        "What is foretold of a target. It warns, and opens no breaker.",
        warnings={
            **some(
                shape(
                    "A warning that stands.",
                    of=_OF,
                    since=TIME,
                    **_LEFT,
                    probability=described(
                        nullable(_SHARE), "How likely it is; null: a question of time."
                    ),
                    reason=TEXT,
                )
            ),
            "description": "Those that stand, the most urgent first.",
        },
        runways=some(
            shape(
                "Something that can run out, and that somebody looks at.",
                of=_OF,
                what=described(TEXT, "What runs out, for people."),
                name=described(
                    nullable(TEXT), "Which one of several; null: there is one."
                ),
                **_LEFT,
            )
        ),
        failure_probability=described(
            nullable(_SHARE),
            "That a breaker opens within a quarter of an hour; null: the model is silent.",
        ),
        silent_because=described(nullable(TEXT), "Why it is; null: it is not."),
        reasons=described(
            some(TEXT), "What weighs most in the probability, the heaviest first."
        ),
        model=shape(
            "What the probability comes from.",
            openings=described(COUNT, "That it has learnt from."),
            begun=nullable(TIME),
            learned=described(nullable(TIME), "When it last did."),
        ),
        changes=some(
            shape(
                "A signal that is not as usual.",
                signal=TEXT,
                since=TIME,
                now=NUMBER,
                usual=described(NUMBER, "What it usually is at this hour."),
                text=TEXT,
            )
        ),
        record=described(
            by_name(ref("Record")),
            "By kind; of those that leave days to avert them nothing is counted.",
        ),
    ),
    "Record": shape(
        "What came of the warnings of one kind. What somebody averted counts as false.",
        warnings=described(COUNT, "That were seen to their end."),
        came=described(COUNT, "Failures that were warned of in time."),
        late=described(COUNT, "That were warned of less than a minute before."),
        false=described(COUNT, "Warnings that nothing came of."),
        missed=described(COUNT, "Failures that came unannounced."),
        precision=described(
            nullable(_SHARE), "came / (came + false); null: none is settled."
        ),
        recall=described(
            nullable(_SHARE), "came / (came + late + missed); null: nothing failed."
        ),
        lead_seconds=described(
            nullable(SECONDS), "From the warning to the failure, the median."
        ),
        text=TEXT,
    ),
    "Target": shape(
        "One target.",
        ("forecast",),
        name=TEXT,
        state=one_of(Condition),
        up=YES,
        reason=TEXT,
        labels=by_name(TEXT),
        connections=COUNT,
        facts=by_name({}),
        maintenance=nullable(ref("Window")),
        watched=nullable(
            shape(
                "Which daemons watch it; null where this one is the only one.",
                here=YES,
                others=some(TEXT),
            )
        ),
        breakers=some(ref("Breaker")),
        probes=some(ref("Probe")),
        forecast=described(
            nullable(ref("Forecast")),
            "Null: this daemon does not watch it. Not within a Status, whose `warnings`"
            " are those that stand.",
        ),
    ),
    "Status": shape(
        "Everything.",
        epoch=TEXT,
        index=ID,
        time=TIME,
        data_at=nullable(TIME),
        age_seconds=nullable(SECONDS),
        overrides=COUNT,
        maintenance=some(ref("Window")),
        store=nullable(
            shape(
                "The store; null where there is none, and all ends with the process.",
                degraded=YES,
                problem=nullable(TEXT),
                size_bytes=COUNT,
                audit_fault={
                    **nullable(TEXT),
                    "description": "Where the audit log is not as it was written, by the"
                    " last look at it; null: nowhere, or nobody has looked.",
                },
            )
        ),
        reload=nullable(
            shape(
                "The last time that the configuration was read anew.",
                ok=YES,
                at=TIME,
                problem=nullable(TEXT),
            )
        ),
        peers=nullable(
            shape(
                "The daemons that share an engine; null where none is configured.",
                name={**TEXT, "description": "What this one is called among them."},
                joined={**YES, "description": "Whether it hears of the others."},
                problem=nullable(TEXT),
                daemons=some(TEXT),
                watching={**COUNT, "description": "Targets that this one watches."},
            )
        ),
        warnings=some(
            shape(
                "A forecast's warning that stands, of one of the targets that this daemon"
                " watches.",
                target=TEXT,
                of=_OF,
                since=TIME,
                seconds=nullable(SECONDS),
                probability=nullable(_SHARE),
                reason=TEXT,
            )
        ),
        targets=some(ref("Target")),
    ),
    # What happened.
    "Event": shape(
        "One line of the history. Ids are larger for what is later, over restarts, too.",
        **_EVENT,
    ),
    "Line": shape(
        "An event that people brought about, as a line of the audit log. Null where there"
        " is no store: it is sealed nowhere.",
        **_EVENT,
        number=nullable(COUNT),
        before=nullable(_SEAL),
        seal=nullable(_SEAL),
    ),
    "Events": shape(
        "A page of the history, the oldest first.",
        events=some(ref("Event")),
        previous=nullable(_LINK),
        next=nullable(_LINK),
    ),
    "Audit": shape(
        "What people did, the oldest first.",
        audit=some(ref("Line")),
        previous=nullable(_LINK),
        verified={**YES, "description": "Whether the whole log was looked through."},
        fault={
            **nullable(TEXT),
            "description": "Where it is not as it was written, first; null: nowhere, or"
            " nobody has looked.",
        },
    ),
    "Incident": shape(
        "A time in which a breaker let calls pass no more as a matter of course.",
        id=ID,
        breaker=TEXT,
        target=TEXT,
        began=TIME,
        ended=nullable(TIME),
        seconds=SECONDS,
        cause=one_of(Cause),
        sqlstate=nullable(TEXT),
        reason=TEXT,
        notes=some(ref("Event")),
    ),
    "Incidents": shape(
        "A page of the incidents that were not over then, the oldest first.",
        since=TIME,
        incidents=some(ref("Incident")),
        previous=nullable(_LINK),
    ),
    "Timeline": shape(
        "Which state a breaker was in, without gaps.",
        breaker=TEXT,
        since=TIME,
        until=TIME,
        spans=some(
            shape(
                "A time in one state.",
                state=_STATE,
                computed_state=_COMPUTED,
                began=TIME,
                ended=nullable(TIME),
                seconds=SECONDS,
                cause=nullable(one_of(Cause)),
                reason=nullable(TEXT),
                event=nullable(ID),
            )
        ),
        unwatched=some(
            shape(
                "A time in which no daemon ran: what is told of it is what was so before"
                " and after.",
                began=TIME,
                ended=TIME,
            )
        ),
    ),
    # What the store keeps of targets.
    "Pings": shape(
        "Pings: those that were answered, how long that took, and those that were not.",
        count=COUNT,
        mean_seconds=nullable(SECONDS),
        max_seconds=nullable(SECONDS),
        bad=COUNT,
    ),
    "Rollup": shape(
        "A target, a minute or an hour a line, the oldest first.",
        target=TEXT,
        by=TEXT,
        since=TIME,
        until=TIME,
        rollup=some(
            shape(
                "A minute, or an hour. `shut_seconds`: operation -> seconds in which no"
                " calls of it passed.",
                start=TIME,
                pings=ref("Pings"),
                shut_seconds=by_name(SECONDS),
            )
        ),
    ),
    "Summary": shape(
        "A target in sum.",
        target=TEXT,
        spans=some(
            shape(
                "What became of it since then. `seen_seconds`: in which it was asked; of"
                " the rest nothing is known. `breakers`: by operation.",
                span=TEXT,
                since=TIME,
                until=TIME,
                seen_seconds=SECONDS,
                pings=ref("Pings"),
                breakers=by_name(
                    shape(
                        "`passed_ratio`: share of the time seen in which calls passed.",
                        shut_seconds=SECONDS,
                        passed_ratio=nullable(
                            {"type": "number", "minimum": 0, "maximum": 1}
                        ),
                    )
                ),
            )
        ),
    ),
    "Failures": shape(
        "The last readings with bad news, the newest first.",
        failures=some(
            shape(
                "A reading.",
                probe=TEXT,
                at=TIME,
                outcome=one_of(Finding),
                took_seconds=SECONDS,
                sqlstate=nullable(TEXT),
                text=nullable(TEXT),
            )
        ),
    ),
    # What people do.
    "Window": shape(
        "A time in which work is done on targets, and nobody is woken for them.",
        id=ID,
        targets=some(TEXT),
        reason=TEXT,
        author=TEXT,
        starts=TIME,
        ends=TIME,
        active=YES,
    ),
    "Windows": shape("Windows that are not over.", windows=some(ref("Window"))),
    "OverrideOrder": asked(
        "What is to stand before a breaker's own word: for an hour, unless it is said"
        " for how long, and for 7 days at most.",
        ("state", "reason"),
        state=one_of(STATES),
        reason=_REASON,
        author=_AUTHOR,
    ),
    "HandBackOrder": asked(
        "Why a breaker is to decide by itself again.", reason=_REASON, author=_AUTHOR
    ),
    "WindowOrder": asked(
        "A window: `for` or `ends` says how long, one of them.",
        ("targets", "reason"),
        targets={
            **some({"type": "string", "examples": ["primary", "env=prod", "*"]}),
            "minItems": 1,
        },
        reason=_REASON,
        starts=TIME,
        ends=TIME,
        author=_AUTHOR,
    ),
    "EndOrder": asked("Who ends it.", author=_AUTHOR),
    "ReloadOrder": asked("Who asks for it.", author=_AUTHOR),
    "NoteOrder": asked("A note.", ("text",), text=_REASON, author=_AUTHOR),
    # The daemon itself.
    "Config": {"type": "object", "description": "The configuration, without secrets."},
    "Well": shape("All is well.", status={"const": "ok"}),
    "Reloaded": shape(
        "What is another than before, a line each.",
        changes=some(TEXT),
        later=some(TEXT),
    ),
}

# A keyword of Python's, which no argument can be called.
for _order in ("OverrideOrder", "WindowOrder"):
    SCHEMAS[_order]["properties"]["for"] = DURATION_TEXT
SCHEMAS["WindowOrder"]["oneOf"] = [{"required": ["for"]}, {"required": ["ends"]}]
