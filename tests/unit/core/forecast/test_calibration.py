"""The calibration: what it says is what came, and less where little was seen."""

import json
import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.core.forecast.calibration import PART, Calibration, Skill
from support.tools import missing

SCORES = st.floats(allow_nan=False)
INCIDENT = round(1 / PART)  # examples


def counted(*what):
    """A calibration that saw (score, examples that came, that did not)."""
    calibration = Calibration()
    for score, came, stayed in what:
        for _ in range(came):
            calibration.take(score, came=True)
        for _ in range(stayed):
            calibration.take(score, came=False)
    return calibration


@given(
    examples=st.lists(st.tuples(SCORES, st.booleans(), st.booleans()), max_size=200),
    asked=st.lists(SCORES, min_size=2, max_size=20),
)
def test_a_higher_score_is_never_less_likely(examples, asked):
    calibration = Calibration()
    for score, came, is_last in examples:
        calibration.take(score, came=came)
        if is_last:
            calibration.forget()

    likely = [calibration.probability(score) for score in sorted(asked)]

    assert all(0 <= p <= 1 for p in likely)
    assert all(a <= b + 1e-12 for a, b in pairwise(likely))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.75, 0.95])
@pytest.mark.parametrize("claim", [-3.0, 0.0, 2.0])
def test_what_it_says_goes_to_what_came(share, claim):
    """Whatever a score claims: of 100 incidents, and as many quiet ones before them.

    What it believed before is one incident more of each bin that it merges: 15 at most.
    """
    of = 100 * INCIDENT
    calibration = counted(
        (-8.0, 1, of), (claim, round(share * of), round((1 - share) * of))
    )

    assert calibration.probability(claim) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("score", [-7.0, -2.0, 0.0, 3.0])
def test_while_nothing_was_seen_it_is_as_the_score_claims(score):
    claim = 1 / (1 + math.exp(-score))

    assert Calibration().probability(score) == pytest.approx(claim, rel=1e-6)
    assert Calibration().base == 0.0


def test_one_incident_is_one_however_often_it_was_looked_at():
    """Fifteen minutes before one opening, all with a score that claims an eighth."""
    calibration = counted((-8.0, 0, 100 * INCIDENT))
    calibration.forget()
    for _ in range(INCIDENT):
        calibration.take(-2.0, came=True)

    assert 0.4 < calibration.probability(-2.0) < 0.6


def test_bins_out_of_order_are_one():
    calibration = counted((-8.0, 0, 3000), (0.0, 600, 600), (2.0, 200, 1000))

    merged = calibration.probability(1.0)

    assert merged == pytest.approx(800 / 2400, abs=0.01)
    assert calibration.probability(0.5) == pytest.approx(merged, rel=0.2)


def test_it_is_monotone_as_scikit_learn_is():
    """Without what scores claim it would be its isotonic regression; with many examples
    they do not weigh."""
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError:
        missing("scikit-learn is missing: pip install scikit-learn")
    draw = random.Random(3)
    calibration, scores, came = Calibration(), [], []
    for _ in range(40_000):
        score = draw.randint(-4, 4)
        is_one = draw.random() < 0.5 + 0.1 * score + 0.08 * (score % 2)
        calibration.take(score, came=is_one)
        scores.append(score)
        came.append(is_one)
    theirs = IsotonicRegression().fit(scores, came)

    # Their blocks are stairs; ours agree with them where a block is one bin.
    steps = theirs.predict(range(-4, 5))
    alone = [i for i in range(9) if (steps == steps[i]).sum() == 1]
    ours = [calibration.probability(i - 4) for i in alone]
    assert len(alone) >= 3
    assert ours == pytest.approx([steps[i] for i in alone], abs=0.01)


def test_incidents_are_forgotten_with_incidents():
    """What always came, and comes no more: a score that is wrong is so after a few."""
    calibration = counted((-8.0, 0, 3000))
    for _ in range(20):
        calibration.forget()
        for _ in range(10):
            calibration.take(2.0, came=True)
    before = calibration.probability(2.0)
    for _ in range(15):
        for _ in range(10):
            calibration.take(2.0, came=False)

    assert before > 0.8
    assert calibration.probability(2.0) < 0.5


@given(st.lists(st.tuples(SCORES, st.booleans()), max_size=100), SCORES)
def test_who_recalls_says_the_same(examples, asked):
    calibration = Calibration()
    for score, came in examples:
        calibration.take(score, came=came)
        if came:
            calibration.forget()
    memory = json.loads(json.dumps(calibration.memory()))

    likely = Calibration.recalled(memory).probability(asked)

    assert likely == pytest.approx(calibration.probability(asked), rel=1e-5)


def test_skill_is_the_share_of_the_error_that_is_gone():
    skill = Skill()
    assert skill.value is None

    skill.take(0.8, 0.5, came=True)
    skill.take(0.1, 0.5, came=False)

    assert skill.value == pytest.approx(1 - (0.04 + 0.01) / 0.5)
    assert Skill.recalled(skill.memory()).value == pytest.approx(skill.value)


def test_who_says_the_base_rate_has_no_skill():
    skill = Skill()
    for came in (True, False, False):
        skill.take(0.3, 0.3, came=came)
        skill.forget()

    assert skill.value == 0.0
