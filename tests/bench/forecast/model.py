"""The model of a target's own openings, beside river's and scikit-learn's.

    python tests/bench/forecast/model.py [--tuning] [SEEDS [DAYS]]

Simulated targets (`omens.py`), a quarter of which have openings that nothing foretells, and
nothing else. All three learn from the same minutes, each once it is known what came of it,
and are judged by what they said before: ours as it is, silence included; river's by the
minute; scikit-learn's fitted anew at midnight on all days before. Theirs are not
calibrated; they speak from the same minute on as ours may, and are silent after an
opening for as long.

What is printed is of held-out seeds (1000 and up); `--tuning` has those that the constants
were chosen with (0 to 99).
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from omens import DAY, NAMES, Life, Mix, live
from river import linear_model, optim, preprocessing
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import machine

from pgbreaker.core.forecast.odds import HORIZON, OPENINGS, REST, Odds

SEEDS, DAYS, HELD_OUT = 28, 24, 1000
FORETOLD = Mix(leaks=0.5, piles=0.4, ramps=0.4, sudden=0.15, lost=0.1)
CHANCE = Mix(leaks=0.0, piles=0.0, ramps=0.0, sudden=0.6, lost=0.0)

AHEAD = int(HORIZON / 60)
BINS = (0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.01)
ALARM = 0.8
MERGED = 60  # minutes within which alarms are one


@dataclass
class Said:
    """What one model said of one target.

    Attributes:
        probability: By the minute; not a number where it was silent.
        seconds: Of the processor, by the minute of the target.
    """

    probability: np.ndarray
    seconds: float


@dataclass
class Judged:
    """What came of what was said, over targets."""

    said: list[np.ndarray] = field(default_factory=list)
    came: list[np.ndarray] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    days: float = 0.0
    spoken: float = 0.0
    openings: int = 0
    warned: int = 0
    false: int = 0

    def take(self, life: Life, said: Said, labels: np.ndarray, first: int) -> None:
        p = said.probability
        judged = np.arange(len(p)) >= first
        spoke = judged & ~np.isnan(p) & ~np.isnan(labels)
        self.costs.append(said.seconds)
        self.days += judged.sum() / DAY
        self.spoken += (judged & ~np.isnan(p)).sum() / DAY
        self.said.append(p[spoke])
        self.came.append(labels[spoke])
        if 0 < labels[spoke].sum() < spoke.sum():
            self.ranks.append(roc_auc_score(labels[spoke], p[spoke]))
        alarms = np.flatnonzero(judged & (np.nan_to_num(p) > ALARM))
        for opened in incidents(life):
            if opened >= first + AHEAD:
                self.openings += 1
                # The last of them is taken 60 s before it opens.
                self.warned += bool(
                    ((alarms >= opened - AHEAD) & (alarms < opened)).any()
                )
        starts = [a for a, b in life.openings]
        ends = [b for a, b in life.openings]
        last = -MERGED
        for alarm in alarms:
            if alarm - last >= MERGED:
                last = alarm
                comes = any(alarm < a <= alarm + AHEAD for a in starts)
                lasts = any(a <= alarm <= b for a, b in zip(starts, ends, strict=True))
                self.false += not comes and not lasts


def rested(closed: int) -> int:
    """The first minute after an opening that is not of it any more."""
    return closed + int(REST / 60) + 1


def labels(life: Life) -> np.ndarray:
    """By the minute: 1 when it was followed by an opening, 0 when not, nan when no example.

    What is no example is so by what was before it: else nobody but who knows what comes
    could tell that he may speak.
    """
    came = np.zeros(len(life.features))
    for opened, _ in life.openings:
        came[max(0, opened - AHEAD) : opened] = 1
    for opened, closed in life.openings:
        came[opened : rested(closed)] = np.nan
    return came


def incidents(life: Life) -> list[int]:
    """Minutes of the openings that are no more of the same one."""
    begun, over = [], 0
    for opened, closed in life.openings:
        if opened >= over:
            begun.append(opened)
        over = rested(closed)
    return begun


def first(life: Life) -> int:
    """From when on it may say something: after five openings, and a day."""
    if len(life.openings) <= OPENINGS:
        return len(life.features)
    return max(DAY, rested(life.openings[OPENINGS - 1][1]))


def ours(life: Life) -> Said:
    moves = {opened: "opened" for opened, _ in life.openings}
    moves |= {closed: "closed" for _, closed in life.openings}
    odds, rows = Odds(NAMES), life.features.tolist()
    p = np.full(len(rows), np.nan)
    begun = time.process_time()
    for minute, row in enumerate(rows):
        if minute in moves:
            getattr(odds, moves[minute])(minute * 60.0)
        said = odds.take(minute * 60.0, row)
        if said is not None:
            p[minute] = said
    return Said(p, (time.process_time() - begun) / len(rows))


def theirs(life: Life, came: np.ndarray, since: int) -> Said:
    """River's, with its scaler and its AdaGrad, as its documentation puts them together."""
    scaler = preprocessing.StandardScaler()
    model = linear_model.LogisticRegression(optimizer=optim.AdaGrad(0.03))
    rows = [dict(zip(NAMES, row, strict=True)) for row in life.features.tolist()]
    p = np.full(len(rows), np.nan)
    begun = time.process_time()
    for minute, row in enumerate(rows):
        scaler.learn_one(row)
        due = minute - AHEAD - 1
        if due >= 0 and not np.isnan(came[due]):
            model.learn_one(scaler.transform_one(rows[due]), bool(came[due]))
        if minute >= since and not np.isnan(came[minute]):
            p[minute] = model.predict_proba_one(scaler.transform_one(row)).get(True, 0)
    return Said(p, (time.process_time() - begun) / len(rows))


def batch(life: Life, came: np.ndarray, since: int) -> Said:
    """Scikit-learn's, of what ours takes: the same inverse hyperbolic sine first."""
    rows, p = np.arcsinh(life.features), np.full(len(came), np.nan)
    begun = time.process_time()
    for midnight in range(since // DAY * DAY, len(came), DAY):
        known = np.flatnonzero(~np.isnan(came[: max(0, midnight - AHEAD)]))
        if not 0 < came[known].sum() < len(known):
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        model.fit(rows[known], came[known])
        day = slice(midnight, midnight + DAY)
        p[day] = model.predict_proba(rows[day])[:, 1]
    p[:since] = np.nan
    p[np.isnan(came)] = np.nan
    return Said(p, (time.process_time() - begun) / len(came))


def one(seed: int, days: int) -> tuple[Life, np.ndarray, dict[str, Said]]:
    life = live(seed, days, CHANCE if seed % 4 == 3 else FORETOLD)
    came, since = labels(life), first(life)
    return (
        life,
        came,
        {
            "ours": ours(life),
            "river": theirs(life, came, since),
            "scikit-learn": batch(life, came, since),
        },
    )


def told(name: str, judged: Judged) -> None:
    said, came = np.concatenate(judged.said), np.concatenate(judged.came)
    rank = f"{np.mean(judged.ranks):.3f}" if judged.ranks else "-"
    skill = "-"
    if len(said) and 0 < came.mean() < 1:
        skill = f"{1 - np.mean((said - came) ** 2) / came.var():+.3f}"
    recall = judged.warned / judged.openings if judged.openings else float("nan")
    print(
        f"{name:14}{judged.openings:>9}{judged.spoken / max(judged.days, 1e-9):>8.0%}"
        f"{rank:>8}{skill:>9}{recall:>9.0%}"
        f"{judged.false / max(judged.days, 1e-9):>9.2f}"
        f"{np.mean(judged.costs) * 1e6:>9.0f}"
    )


def reliable(judged: dict[str, Judged]) -> None:
    print(f"\n{'said':12}", *(f"{name + ': said / came / n':>32}" for name in judged))
    for low, high in pairwise(BINS):
        cells = []
        for one_ in judged.values():
            said, came = np.concatenate(one_.said), np.concatenate(one_.came)
            of = (said >= low) & (said < high)
            cells.append(
                f"{said[of].mean():.3f} / {came[of].mean():.3f} / {of.sum():>7,}"
                if of.any()
                else "-"
            )
        print(f"{low:g} to {min(high, 1):<6g}".ljust(12), *(f"{c:>32}" for c in cells))


def main(seeds: int, days: int, begin: int) -> None:
    begun = time.monotonic()
    kinds: dict[str, dict[str, Judged]] = {"foretold": {}, "by chance": {}}
    with ProcessPoolExecutor(2) as pool:
        chosen = range(begin, begin + seeds)
        for seed, (life, came, models) in zip(
            chosen, pool.map(one, chosen, [days] * seeds), strict=True
        ):
            kind = "by chance" if seed % 4 == 3 else "foretold"
            for name, said in models.items():
                judged = kinds[kind].setdefault(name, Judged())
                judged.take(life, said, came, first(life))
    print(machine())
    print(f"{seeds} targets of {days} days, seeds from {begin}")
    for kind, judged in kinds.items():
        if not judged:
            continue
        print(
            f"\n{'openings ' + kind:14}{'n':>6}{'spoke':>8}{'AUC':>8}{'skill':>9}"
            f"{f'> {ALARM}':>9}{'false/d':>9}{'us/min':>9}"
        )
        for name, one_ in judged.items():
            told(name, one_)
        reliable(judged)
    print(f"\ntook {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    asked = argparse.ArgumentParser()
    asked.add_argument("--tuning", action="store_true")
    asked.add_argument("seeds", nargs="?", type=int, default=SEEDS)
    asked.add_argument("days", nargs="?", type=int, default=DAYS)
    how = asked.parse_args()
    main(how.seeds, how.days, 0 if how.tuning else HELD_OUT)
