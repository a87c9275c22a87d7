"""Whole sweeps against a second reading of the rules, slow and plain, that takes nothing from `sweeps/schedulers`.

The rules, as they were asked for:

- *Relation.* A beats B if for every form of B, A has a form of the same kind that is no worse in every cost, every
  quality at the rung is no worse, and one of all these is strictly better. A form that another one of its own training
  reaches is no point of any front and does not count; else a training with two forms of one kind would beat itself.
- *Best 1 / eta.* Non-dominated ranks. Within a rank an even spread over the quality at the rung and the costs of the
  largest form.
- *Verdicts.* At the floor, from the second rung on: pause. Fewer than eta results: pause. Beaten and outside the best
  1 / eta: stop. At the floor: the paired difference to the baseline is at most 2 of its standard errors.
- *Promotion.* Only above the floor, and when the rung has eta results or no new or running trial can still reach it.
- *Patience.* With `beaten: pause`, who would be stopped waits while a new or running trial can still reach the rung.
- *Exception.* Where nothing else is left to do and nothing has been trained to its end, the paused trial with the
  lowest training loss goes on, of equal ones the one that was proposed first.
- *Contract.* At the end no trial on its rung's front and above the floor is stopped or left paused.
- *Older reports.* Where some report at a rung names no forms, each training there stands for its largest form alone.
"""

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest

from qa_core.errors import DataError
from sweeps.schedulers.pareto_asha import ParetoAsha
from sweeps.schedulers.pausing import Action, Situation, Verdict, next_step
from sweeps.spec.objectives import Objective

Report = Mapping[str, Any]

BUDGET = 100
RUNGS = (10, 30, 90)
FIELDS = {"em_percent": "selection_em_percent", "f1_percent": "selection_f1_percent"}  # qualities at a rung
KINDS = ("scored at rungs: float32", "scored at rungs: int8", "int8", "int8-e8", "nf4")
MEMORY, DISK = ("memory_mb", "min"), ("artifact_bytes", "min")
OBJECTIVES = (
    (("em_percent", "max"),),
    (("em_percent", "max"), MEMORY),
    (MEMORY, ("em_percent", "max")),
    (("em_percent", "max"), DISK),
    (("em_percent", "max"), ("f1_percent", "max"), MEMORY),
    (DISK, ("em_percent", "max"), MEMORY),
)


# The second version


def qualities(report: Report, objectives: Sequence[tuple[str, str]]) -> list[float]:
    return [report[FIELDS[name]] for name, _ in objectives if name in FIELDS]


def costs(form: Report, objectives: Sequence[tuple[str, str]]) -> list[float]:
    return [form[name] for name, _ in objectives if name not in FIELDS]


def forms_of(report: Report) -> Sequence[Report]:
    return report.get("forms") or [{**report, "kind": "the only one"}]


def is_no_larger(one: Report, other: Report, objectives: Sequence[tuple[str, str]]) -> bool:
    pairs = zip(costs(one, objectives), costs(other, objectives), strict=True)
    return one["kind"] == other["kind"] and all(own <= its for own, its in pairs)


def is_smaller(one: Report, other: Report, objectives: Sequence[tuple[str, str]]) -> bool:
    return is_no_larger(one, other, objectives) and costs(one, objectives) != costs(other, objectives)


def counted(report: Report, objectives: Sequence[tuple[str, str]]) -> list[Report]:
    forms = forms_of(report)
    return [form for form in forms if not any(is_smaller(other, form, objectives) for other in forms)]


def beats(a: Report, b: Report, objectives: Sequence[tuple[str, str]]) -> bool:
    ours, theirs = counted(a, objectives), counted(b, objectives)
    pairs = list(zip(qualities(a, objectives), qualities(b, objectives), strict=True))
    if any(own < its for own, its in pairs):
        return False
    if not all(any(is_no_larger(own, its, objectives) for own in ours) for its in theirs):
        return False
    return any(own > its for own, its in pairs) or any(
        is_smaller(own, its, objectives) for own in ours for its in theirs
    )


def largest_form(report: Report, objectives: Sequence[tuple[str, str]]) -> Report:
    """The form with the most memory; of equal ones, or without such an objective, by the costs in their order."""
    has_memory = MEMORY in objectives

    def size(form: Report) -> tuple[float, ...]:
        return (form["memory_mb"] if has_memory else 0.0, *costs(form, objectives))

    return max(forms_of(report), key=size)


def largest(report: Report, objectives: Sequence[tuple[str, str]]) -> tuple[Fraction, ...]:
    """The losses of the largest form, memory first, else in the order of the objectives."""
    found = largest_form(report, objectives)
    names = [name for name, _ in objectives]
    ordered = [name for name in names if name == "memory_mb"] + [
        name for name in names if name != "memory_mb"
    ]
    return tuple(Fraction(-report[FIELDS[name]] if name in FIELDS else found[name]) for name in ordered)


def ranks(trials: Sequence[str], is_better: Callable[[str, str], bool]) -> dict[str, int]:
    left, found, rank = set(trials), {}, 0
    while left:
        front = [trial for trial in left if not any(is_better(other, trial) for other in left)]
        assert front, "a circle"
        found |= dict.fromkeys(front, rank)
        left -= set(front)
        rank += 1
    return found


def place_in_layer(
    rows: Sequence[tuple[Fraction, ...]], own: tuple[Fraction, ...], spans: Sequence[Fraction]
) -> int:
    """How many rows of the layer come before: the net begins at the first row, then always the farthest one."""
    points = sorted(set(rows))
    net: list[tuple[Fraction, ...]] = []
    while True:
        distances = [
            min(
                (
                    sum(abs(x - y) / span for x, y, span in zip(point, chosen, spans, strict=True))
                    for chosen in net
                ),
                default=Fraction(0),
            )
            for point in points
        ]
        free = [index for index, point in enumerate(points) if point not in net]
        chosen = points[max(free, key=lambda index: (distances[index], -index))]
        if chosen == own:
            return sum(rows.count(point) for point in net)
        net.append(chosen)


@dataclass
class SlowRung:
    objectives: Sequence[tuple[str, str]]
    eta: float
    has_floor: bool
    reports: dict[str, Report] = field(default_factory=dict)
    wins: dict[tuple[str, str, bool], bool] = field(default_factory=dict)  # worked out before

    @property
    def is_by_forms(self) -> bool:
        return all(report.get("forms") for report in self.reports.values())

    def compared(self, trial: str) -> Report:
        """A report; where an older version's name no forms, each training stands for its largest one alone."""
        report = self.reports[trial]
        if self.is_by_forms:
            return report
        return {**report, "forms": [{**largest_form(report, self.objectives), "kind": "the only one"}]}

    def is_better(self, one: str, other: str) -> bool:
        key = one, other, self.is_by_forms
        if key not in self.wins:
            self.wins[key] = beats(self.compared(one), self.compared(other), self.objectives)
        return self.wins[key]

    def is_settled(self) -> bool:
        return len(self.reports) >= self.eta

    def is_at_floor(self, trial: str) -> bool:
        report = self.reports[trial]
        gain, error = report.get("selection_gain_percent"), report.get("selection_gain_error_percent")
        return self.has_floor and gain is not None and error is not None and gain <= 2 * error

    def goes_on(self, trial: str) -> bool:
        found = ranks(list(self.reports), self.is_better)
        own = found[trial]
        if own == 0:
            return True
        room = math.floor(len(found) / self.eta)
        rows = {name: largest(report, self.objectives) for name, report in self.reports.items()}
        columns = list(zip(*rows.values(), strict=True))
        spans = [(max(column) - min(column)) or Fraction(1) for column in columns]
        layer = [rows[name] for name, rank in found.items() if rank == own]
        before = sum(rank < own for rank in found.values())
        return before < room and before + place_in_layer(layer, rows[trial], spans) < room

    def is_on_front(self, trial: str) -> bool:
        return not any(self.is_better(other, trial) for other in self.reports)

    def is_judged_as_at_the_end(self, trial: str) -> bool:
        """False where a report without forms came after the trial's: who beats whom is then decided in another way.

        In a sweep that an older version began, such reports are the first ones.
        """
        trials = list(self.reports)
        without = [index for index, name in enumerate(trials) if not self.reports[name].get("forms")]
        return not without or trials.index(trial) >= without[0]


@dataclass
class Slow:
    """All rungs; a trial stands at the highest one that it has reported at."""

    objectives: Sequence[tuple[str, str]]
    eta: float
    floor: str = "pause"
    beaten: str = "stop"
    rungs: list[SlowRung] = field(init=False)

    def __post_init__(self) -> None:
        self.rungs = [
            SlowRung(self.objectives, self.eta, index >= 1 and self.floor != "off")
            for index in range(len(RUNGS))
        ]

    def verdict(self, trial: str, index: int, report: Report) -> Verdict:
        rung = self.rungs[index]
        rung.reports[trial] = report
        if rung.is_at_floor(trial):
            return Verdict.STOP if self.floor == "stop" else Verdict.PAUSE
        if not rung.is_settled():
            return Verdict.PAUSE
        if rung.goes_on(trial):
            return Verdict.GO_ON
        return Verdict.PAUSE if self.beaten == "pause" else Verdict.STOP

    def judged(
        self, paused: Mapping[str, int], going: Mapping[str, int], may_start: bool, too_dear: frozenset[str]
    ) -> tuple[set[str], set[str]]:
        """Who may go on and who is to stop; `paused` and `going` say the index of a trial's rung, -1 for none."""
        promoted: set[str] = set()
        beaten: set[str] = set()
        waiting: set[str] = set()
        for index in range(len(RUNGS)):
            comes = may_start or any(rung < index for trial, rung in going.items() if trial not in too_dear)
            comes |= any(paused[trial] < index for trial in promoted | (waiting - too_dear))
            for trial in [trial for trial, rung in paused.items() if rung == index]:
                rung = self.rungs[index]
                if rung.is_at_floor(trial):
                    continue
                if comes and not rung.is_settled():
                    waiting.add(trial)
                elif not rung.goes_on(trial):
                    if self.beaten == "stop" or not comes:
                        beaten.add(trial)
                elif trial not in too_dear:
                    promoted.add(trial)
        return promoted, beaten

    def last_resort(self, paused: Mapping[str, int]) -> str | None:
        held = [trial for trial, index in paused.items() if self.rungs[index].is_at_floor(trial)]

        def order(trial: str) -> tuple[float, str]:
            loss = self.rungs[paused[trial]].reports[trial]["train_loss"]
            return (math.inf if loss is None else loss), trial

        return min(held, key=order, default=None)


# Random sweeps


@dataclass(frozen=True)
class Case:
    """One random sweep: what each trial reports at each rung; None: it fails there."""

    objectives: Sequence[tuple[str, str]]
    eta: float
    floor: str
    beaten: str
    workers: int
    reports: Mapping[str, Sequence[Report | None]]
    has_limit: bool  # some trials that are paused or were cut short may not go on


def case(rng: random.Random) -> Case:
    objectives = rng.choice(OBJECTIVES)
    side = rng.choice([1, 2, 4, 30])
    has_forms = rng.random() < 0.75
    is_mixed = rng.random() < 0.1  # reports of an older version among them
    trials = {}
    for number in range(rng.randint(1, 14)):
        forms = made_up_forms(rng, side) if has_forms and not (is_mixed and rng.random() < 0.3) else None
        base = {"memory_mb": float(rng.randint(1, side)), "artifact_bytes": rng.randint(1, side)}
        learns_at = rng.choice([0, 0, 1, 2, 3, 9])
        reports: list[Report | None] = [
            made_up_report(rng, side, index, forms, base, is_at_floor=index < learns_at)
            for index in range(len(RUNGS))
        ]
        if rng.random() < 0.1:
            reports[rng.randrange(len(RUNGS))] = None
        trials[f"t{number:04d}"] = reports
    return Case(
        objectives,
        rng.choice([1.5, 2.0, 3.0, 3.0, 4.5]),
        rng.choice(["pause", "pause", "stop", "off"]),
        rng.choice(["stop", "stop", "pause"]),
        rng.randint(1, 4),
        trials,
        rng.random() < 0.3,
    )


def made_up_forms(rng: random.Random, side: int) -> list[Report]:
    kinds = rng.choice([KINDS[:1], KINDS[1:2], KINDS[:1] + KINDS[2:], KINDS])
    found = [
        {
            "label": f"form{index}",
            "kind": rng.choice(kinds),
            "memory_mb": float(rng.randint(1, side)),
            "artifact_bytes": rng.randint(1, side),
        }
        for index in range(rng.randint(1, 5))
    ]
    limit = rng.choice([side, side, max(1, side // 2)])  # what is over the budget is not reported
    return [form for form in found if form["memory_mb"] <= limit] or [
        min(found, key=lambda form: form["memory_mb"])
    ]


def made_up_report(
    rng: random.Random,
    side: int,
    index: int,
    forms: list[Report] | None,
    base: Report,
    *,
    is_at_floor: bool,
) -> Report:
    error = float(rng.randint(0, 3))
    gain = rng.choice([2 * error, 2 * error - 1]) if is_at_floor else 2 * error + rng.randint(1, 3)
    is_known = rng.random() < 0.95
    return {
        "examples_seen": RUNGS[index] + rng.randint(0, 5),
        "selection_em_percent": float(rng.randint(0, side)),
        "selection_f1_percent": float(rng.randint(0, side)),
        **base,
        "selection_gain_percent": gain,
        "selection_gain_error_percent": error if is_known else None,
        "train_loss": rng.choice([None, 1.0, 1.0, 2.0, 3.0]),
        "forms": copy.deepcopy(forms),
    }


def index_of(seen: int) -> int:
    return sum(seen >= rung for rung in RUNGS) - 1


class PlayedSweep:
    """Plays a case through the scheduler, and holds each decision against the second version."""

    def __init__(self, given: Case, rng: random.Random) -> None:
        self.case, self.rng = given, rng
        self.objectives = [Objective(name=name, goal=goal, reference=0) for name, goal in given.objectives]
        self.scheduler = ParetoAsha.from_options(
            {"grace_examples": RUNGS[0], "eta": 3.0, "floor": given.floor, "beaten": given.beaten}
        )
        self.slow = Slow(given.objectives, given.eta, given.floor, given.beaten)
        self.curves: dict[str, list[Report]] = {}
        self.judge = self.made_judge()
        self.left = list(given.reports)
        self.going: dict[str, int] = {}  # examples seen
        self.paused: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.resorted = 0

    def made_judge(self) -> Any:
        """The scheduler as a resumed sweep makes it, in another order; rungs stay where they are for any eta."""
        shuffled = list(self.curves.items())
        self.rng.shuffle(shuffled)
        judge = self.scheduler.judge(self.objectives, BUDGET, dict(shuffled))
        assert judge.halving.settings.rungs == RUNGS
        settings = judge.halving.settings.__class__(
            **{**judge.halving.settings.__dict__, "eta": self.case.eta}
        )
        judge.halving = judge.halving.__class__(settings)
        judge.halving.replay(judge.reader.of_curves(dict(shuffled)))
        return judge

    def play(self) -> None:
        while self.fill() or self.going:
            if self.rng.random() < 0.1:
                self.judge = self.made_judge()
            if not self.going:
                continue
            trial = self.rng.choice(sorted(self.going))
            index = index_of(self.going[trial]) + 1
            if index == len(RUNGS):
                del self.going[trial]
                self.ended[trial] = "ok"
                continue
            report = self.case.reports[trial][index]
            if report is None:
                self.refuse_bad_reports(trial, index)
                del self.going[trial]
                self.ended[trial] = "failed"
                continue
            self.curves.setdefault(trial, []).append(report)
            found = self.judge.verdict(trial, report)
            assert found is self.slow.verdict(trial, index, report), (trial, index)
            seen = self.going.pop(trial)
            if found is Verdict.GO_ON:
                self.going[trial] = report["examples_seen"]
            elif found is Verdict.PAUSE:
                self.paused[trial] = report["examples_seen"]
            else:
                self.ended[trial] = "stopped"
            assert seen < report["examples_seen"]

    def refuse_bad_reports(self, trial: str, index: int) -> None:
        """A report that cannot be compared fails and leaves no trace."""
        before = self.judge.halving.state()
        good = made_up_report(
            self.rng, 3, index, None, {"memory_mb": 1.0, "artifact_bytes": 1}, is_at_floor=False
        )
        name = self.rng.choice([FIELDS.get(item, item) for item, _ in self.case.objectives])
        bad: Report = {**good, name: self.rng.choice([math.nan, math.inf, None, "12", True])}
        if self.rng.random() < 0.3:
            bad = {key: value for key, value in good.items() if key != name}
        elif self.rng.random() < 0.5 and name not in FIELDS.values():
            form = {"kind": "int8", "memory_mb": 1.0, "artifact_bytes": 1, name: math.nan}
            bad = {**good, "forms": [{"kind": "nf4", "memory_mb": 1.0, "artifact_bytes": 1}, form]}
        with pytest.raises(DataError, match="the trial's report"):
            self.judge.verdict(trial, bad)
        assert self.judge.halving.state() == before

    def fill(self) -> bool:
        """Give free workers what there is to do; returns whether there was anything."""
        did = False
        while len(self.going) < self.case.workers:
            dear = [trial for trial in sorted({**self.paused, **self.going}) if self.rng.random() < 0.3]
            too_dear = frozenset(dear if self.case.has_limit else ())
            situation = Situation(
                dict(self.paused), dict(self.going), bool(self.left), "ok" in self.ended.values(), too_dear
            )
            found = self.judge.candidates(situation)
            paused = {trial: index_of(seen) for trial, seen in self.paused.items()}
            going = {trial: index_of(seen) for trial, seen in self.going.items()}
            promoted, beaten = self.slow.judged(paused, going, bool(self.left), too_dear)
            assert (set(found.promotions), set(found.beaten)) == (promoted, beaten)
            assert list(found.promotions) == sorted(promoted, key=lambda trial: (-paused[trial], trial))
            assert found.last_resort == self.slow.last_resort(paused)
            if found.beaten:
                self.ended[found.beaten[0]] = "stopped"
                del self.paused[found.beaten[0]]
                did = True
                continue
            step = next_step(situation, found, fits=(self.paused.keys() - too_dear).__contains__)
            if step.action is Action.START:
                self.going[self.left.pop(0)] = 0
            elif step.action is Action.PROMOTE:
                trial = str(step.trial_id)
                if trial not in promoted:
                    assert (promoted, self.left, self.going) == (set(), [], {})
                    assert "ok" not in self.ended.values()
                    self.resorted += 1
                self.going[trial] = self.paused.pop(trial)
            else:
                # With a limit, another draw of what is too dear may let one go on.
                assert self.case.has_limit or not promoted
                return did
            did = True
        return did

    def check_the_end(self) -> None:
        assert not self.left
        assert {*self.ended, *self.paused} == set(self.case.reports)
        for trial, curve in self.curves.items():
            index = index_of(curve[-1]["examples_seen"])
            rung = self.slow.rungs[index]
            is_held = rung.is_at_floor(trial) or not rung.is_judged_as_at_the_end(trial)
            if rung.is_on_front(trial) and not is_held and not self.case.has_limit:
                assert self.ended.get(trial) in ("ok", "failed"), trial
        if self.case.floor != "stop" and not self.case.has_limit:
            assert not self.paused or "ok" in self.ended.values()


def check(seed: int) -> PlayedSweep:
    rng = random.Random(seed)
    sweep = PlayedSweep(case(rng), rng)
    sweep.play()
    sweep.check_the_end()
    return sweep


def check_all(seeds: range) -> list[PlayedSweep]:
    return [check(seed) for seed in seeds]


def test_random_sweeps_are_decided_by_the_rules_as_they_read() -> None:
    seen = check_all(range(100))
    ends = [end for sweep in seen for end in sweep.ended.values()]
    for end, least in (("ok", 150), ("stopped", 150), ("failed", 15)):
        assert ends.count(end) >= least, end
    assert sum(len(sweep.paused) for sweep in seen) >= 30
    assert sum(sweep.resorted for sweep in seen) >= 5


def test_the_contract_is_of_trials_that_are_judged_as_at_the_end() -> None:
    """Stopped form by form; then comes a report without forms, and of the largest forms it has the smallest."""
    sweep = check(1501)
    rung = sweep.slow.rungs[0]
    assert (sweep.ended["t0005"], rung.is_on_front("t0005")) == ("stopped", True)
    assert not rung.is_judged_as_at_the_end("t0005")
    assert rung.is_judged_as_at_the_end("t0006")


@pytest.mark.slow
def test_ten_thousand_random_sweeps_are_decided_by_the_rules_as_they_read() -> None:
    check_all(range(1000, 11_000))


def form(kind: str, memory: float) -> Report:
    return {"kind": kind, "memory_mb": memory}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([form("a", 1)], [form("a", 2)], True),
        ([form("a", 2)], [form("a", 2)], False),
        ([form("a", 1)], [form("b", 2)], False),
        ([form("a", 1), form("b", 9)], [form("a", 2)], True),
        ([form("a", 1)], [form("a", 2), form("b", 9)], False),
        ([form("a", 3), form("a", 8)], [form("a", 3), form("a", 8)], False),
    ],
    ids=["smaller", "equal", "another-kind", "more-kinds", "a-kind-that-is-not-met", "itself"],
)
def test_the_second_version_reads_the_relation_as_it_stands(
    ours: list[Report], theirs: list[Report], expected: bool
) -> None:
    objectives = (("em_percent", "max"), MEMORY)

    def report(forms: list[Report], em: float) -> Report:
        return {"selection_em_percent": em, "forms": forms}

    assert beats(report(ours, 50), report(theirs, 50), objectives) == expected
    is_met = all(any(is_no_larger(own, its, objectives) for own in ours) for its in theirs)
    assert beats(report(ours, 60), report(theirs, 50), objectives) == is_met
    assert not beats(report(ours, 40), report(theirs, 50), objectives)


Break = Callable[[pytest.MonkeyPatch], None]


def no_floor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sweeps.schedulers.halving.FIRST_FLOOR", 2)


def the_latest_goes_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sweeps.schedulers.halving.in_order_of_proposal", lambda trial: (-int(trial[1:]), trial))


def two_errors_are_three(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("sweeps.schedulers.pareto_asha.FLOOR_ERRORS", 3.0)


def smallest_form_alone(patch: pytest.MonkeyPatch) -> None:
    from sweeps.schedulers import halving

    plain = halving.FormRanks.add
    patch.setattr(
        halving.FormRanks,
        "add",
        lambda self, forms: plain(self, [min(forms, key=lambda item: item.losses[::-1])]),
    )


@pytest.mark.parametrize(
    "broken",
    [no_floor, the_latest_goes_first, two_errors_are_three, smallest_form_alone],
    ids=lambda broken: broken.__name__.replace("_", "-"),
)
def test_a_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch, broken: Break) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        check_all(range(100))
