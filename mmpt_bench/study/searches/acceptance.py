"""Whether searches can be believed: dev against test over all their models, and what neighbouring rates gain on test.

What is computed, and what is accepted, was decided before any score was seen: docs/decisions/0032.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mmpt_bench.board.writers.numbers import p_value
from mmpt_bench.common.errors import RequestError, UntrustedRecord
from mmpt_bench.common.escaping import markdown
from mmpt_bench.common.files import write_atomic
from mmpt_bench.common.words import counted
from mmpt_bench.records import learning_rates
from mmpt_bench.records.learning_rates import Choice
from mmpt_bench.records.rate_curve import Point, Scores, standard_error
from mmpt_bench.records.rate_trials import DEV, TESTS, TRIALS, Search, read_trials, scores_of
from mmpt_bench.records.store import Store
from mmpt_bench.stats.claims import SIGNIFICANT

LEAST_CORRELATION = 0.9
COMMON_SEEDS = 3
"""So many a neighbour shares with the chosen rate, to be compared with it."""
FILE = "search.md"


@dataclass(frozen=True)
class Gain:
    """What a neighbouring rate gains on test over the chosen one."""

    rate: float
    mean: float
    """Of the paired differences over common seeds; above 0 where the neighbour is better."""
    error: float
    """Standard error of that mean."""
    n: int
    """Common seeds."""

    @property
    def is_large(self) -> bool:
        """Returns whether it is more than one standard error."""
        return self.mean > self.error

    @property
    def p(self) -> float:
        """Returns the p-value of the one-sided paired t-test over seeds that the gain is above 0."""
        if self.error == 0:
            return 0.0 if self.mean > 0 else 1.0
        from scipy.stats import t

        return float(t.sf(self.mean / self.error, self.n - 1))


@dataclass(frozen=True)
class Searched:
    """One search, with what its models scored on test data."""

    choice: Choice
    test: Scores
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class Acceptance:
    """What the protocol's acceptance rests on, for searches of one backbone, training data, budget and dev part."""

    searched: tuple[Searched, ...]
    n_models: int
    """With a dev and a test score."""
    correlation: float | None
    """Spearman's, of dev and test over all of them; None for fewer than three or where one is constant."""
    lacking: tuple[tuple[Search, int], ...] = ()
    """Searches with models that have a dev score and no test score, and how many those are."""

    @property
    def is_accepted(self) -> bool:
        """Returns whether all are scored, dev predicts test, and every chosen rate has neighbours that gain little."""
        holds = not self.lacking and self.correlation is not None and self.correlation >= LEAST_CORRELATION
        return holds and all(of.gains and not any(gain.is_large for gain in of.gains) for of in self.searched)

    @property
    def p_values(self) -> list[tuple[str, float]]:
        """Returns (method, p of a neighbour's gain after Holm over all of them), by rising p."""
        from mmpt_bench.stats.differences import holm

        names = labels([of.choice.search for of in self.searched])
        gained = [(name, gain.p) for name, of in zip(names, self.searched, strict=True) for gain in of.gains]
        adjusted = holm([p for _, p in gained])
        return sorted(((name, p) for (name, _), p in zip(gained, adjusted, strict=True)), key=lambda each: each[1])


@dataclass(frozen=True)
class Written:
    """The table of a results folder."""

    groups: tuple[Acceptance, ...]
    text: str
    """Markdown."""


def write_acceptance(store: Store) -> Written:
    """Writes search.md from the recorded trials, their test scores and the choices, and returns it.

    Raises:
        RequestError: no finished search has test scores.
    """
    groups = acceptances(store)
    if not groups:
        raise RequestError(
            f"No finished search in `{store.root.name}` has test scores: `mmpt-bench tune --also-test` makes them."
        )
    written = Written(tuple(groups), "\n".join(_text(groups)) + "\n")
    write_atomic(store.path(FILE), written.text.encode())
    return written


def acceptances(store: Store) -> list[Acceptance]:
    """Returns the acceptance of the searches by dev score, those together that were made under the same conditions.

    Raises:
        UntrustedRecord: a choice was made from other scores than the trials that are recorded.
    """
    trials, tests = read_trials(store.path(TRIALS)), read_trials(store.path(TESTS))
    groups: dict[str, list[Choice]] = {}
    for choice in learning_rates.read(store.path(learning_rates.FILE)):
        if choice.search.criterion == DEV:
            groups.setdefault(_conditions(choice.search), []).append(choice)
    found = []
    for choices in groups.values():
        searched, pairs, lacking = [], [], []
        for choice in choices:
            dev, test = scores_of(trials, choice.search), scores_of(tests, choice.search)
            _check_same(choice, dev)
            scored = {key: score for key, score in dev.items() if score is not None}
            pairs += [(score, t) for key, score in scored.items() if (t := test.get(key)) is not None]
            if n := sum(test.get(key) is None for key in scored):
                lacking.append((choice.search, n))
            if test:
                searched.append(Searched(choice, test, gains(choice, test)))
        if searched:
            found.append(Acceptance(tuple(searched), len(pairs), spearman(pairs), tuple(lacking)))
    return found


def _check_same(choice: Choice, dev: Scores) -> None:
    for point in choice.curve.points:
        for seed, score in point.scores:
            if (point.rate, seed) in dev and dev[point.rate, seed] != score:
                raise UntrustedRecord(
                    f"`{learning_rates.FILE}` was made from other scores than `{TRIALS}` has: {choice.search.method} "
                    f"at {point.rate:g}, seed {seed}. `mmpt-bench tune` with the search's options makes it anew."
                )


def _conditions(search: Search) -> str:
    return Search("", {}, search.backbone_fingerprint, search.corpus_fingerprint, search.budget, search.dtype,
                  search.criterion, search.dev_fingerprint).key  # fmt: skip


def gains(choice: Choice, test: Scores) -> tuple[Gain, ...]:
    """Returns what the next lower and the next higher rate with enough common seeds gain on test."""
    chosen, points = choice.curve.chosen, choice.curve.points
    if chosen is None:
        return ()
    place, found = points.index(chosen), []
    for side in (points[:place][::-1], points[place + 1 :]):
        gain = next((gain for point in side if (gain := _gain(chosen, point, test)) is not None), None)
        found += [gain] if gain is not None else []
    return tuple(found)


def _gain(chosen: Point, other: Point, test: Scores) -> Gain | None:
    """Returns the gain of a rate, None where it has too few seeds in common with the chosen one."""
    pairs = [(test.get((other.rate, seed)), test.get((chosen.rate, seed))) for seed, _ in chosen.scores]
    apart = [a - b for a, b in pairs if a is not None and b is not None]
    if other.failed or len(apart) < COMMON_SEEDS:
        return None
    return Gain(other.rate, math.fsum(apart) / len(apart), standard_error(apart), len(apart))


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Returns the rank correlation; None for fewer than three pairs or where one side is constant."""
    if len(pairs) < 3 or any(len({pair[side] for pair in pairs}) == 1 for side in (0, 1)):
        return None
    from scipy.stats import spearmanr

    dev, test = zip(*pairs, strict=True)
    return float(spearmanr(dev, test).statistic)


def test_values(point: Point, test: Scores) -> list[float]:
    """Returns the test scores of a rate's models that have one."""
    return [score for seed, _ in point.scores if (score := test.get((point.rate, seed))) is not None]


def labels(searches: Sequence[Search]) -> list[str]:
    """Returns what tells searches apart: the method, and those hyperparameters that differ between searches of it."""
    names = []
    for search in searches:
        others = [each.params for each in searches if each.method == search.method]
        told = [f"{n}={v}" for n, v in search.params.items() if any(params.get(n) != v for params in others)]
        names.append(f"{search.method} ({', '.join(told)})" if told else search.method)
    return names


def _text(groups: Sequence[Acceptance]) -> list[str]:
    lines = ["# Searched learning rates", ""]
    lines += ["Scores are chance-centred, in %, the mean over tasks; test scores were never looked at by a choice.", ""]
    for group in groups:
        search = group.searched[0].choice.search
        names = [markdown(name) for name in labels([of.choice.search for of in group.searched])]
        lines += [f"## {counted(search.budget['steps'], 'step')} of {search.budget['batch_size']}, {search.dtype}", ""]
        lines += [*_verdict(group, names), "", *_choices(group, names), "", *_curves(group, names), ""]
    return lines[:-1]


def _verdict(group: Acceptance, names: Sequence[str]) -> list[str]:
    found = "not defined" if group.correlation is None else f"{group.correlation:.3f}"
    large = [name for name, of in zip(names, group.searched, strict=True) if any(gain.is_large for gain in of.gains)]
    alone = [name for name, of in zip(names, group.searched, strict=True) if not of.gains]
    said = f"**{'Accepted' if group.is_accepted else 'Not accepted'}.** "
    said += (
        f"Spearman of dev and test over {counted(group.n_models, 'model')}: {found} (at least {LEAST_CORRELATION:g}). "
    )
    said += "A neighbouring rate gains more than one standard error on test for "
    said += f"{', '.join(large) if large else 'no method'}."
    if tested := group.p_values:
        better = dict.fromkeys(markdown(name) for name, p in tested if p < SIGNIFICANT)
        said += (
            f" After Holm over the {counted(len(tested), 'comparison')}, a one-sided paired t-test over seeds finds "
            f"a gain for {', '.join(better) if better else f'no method (lowest p {p_value(tested[0][1])})'}."
        )
    for search, n in group.lacking:
        searches = [*(of.choice.search for of in group.searched), *(each for each, _ in group.lacking)]
        name = labels(list({each.key: each for each in [search, *searches]}.values()))[0]
        said += f" Not scored on test: {counted(n, 'model')} of {markdown(name)}; `tune --also-test` does it."
    if alone:
        said += f" No neighbour of the chosen rate has {COMMON_SEEDS} seeds in common for {', '.join(alone)}."
    return [said]


def _choices(group: Acceptance, names: Sequence[str]) -> list[str]:
    lines = [
        "| method | rate | dev mean | dev worst | test mean | test worst | decades | neighbours on test | flags |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for name, of in zip(names, group.searched, strict=True):
        chosen = of.choice.curve.chosen
        if chosen is None:
            lines.append(f"| {name} | all failed | | | | | | | |")
            continue
        tested = test_values(chosen, of.test)
        gained = "; ".join(f"{g.rate:g}: {100 * g.mean:+.1f} ± {100 * g.error:.1f} ({g.n})" for g in of.gains)
        flags = ["at the edge"] if of.choice.curve.at_edge else []
        flags += [f"worst seed far below the mean at {rate:g}" for rate in of.choice.collapsed]
        cells = [
            name, f"{chosen.rate:g}", _percent(chosen.mean), _percent(chosen.worst),
            *_mean_and_worst(tested), f"{of.choice.width or 0:.2f}", gained, "; ".join(flags),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _curves(group: Acceptance, names: Sequence[str]) -> list[str]:
    lines = [
        "| method | rate | seeds | dev mean | dev worst | test mean | test worst |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, of in zip(names, group.searched, strict=True):
        for point in of.choice.curve.points:
            dev = ["failed", "failed"] if point.failed else [_percent(point.mean), _percent(point.worst)]
            tested = ["", ""] if point.failed else _mean_and_worst(test_values(point, of.test))
            cells = [name, f"{point.rate:g}", str(len(point.scores)), *dev, *tested]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mean_and_worst(values: Sequence[float]) -> list[str]:
    return [_percent(math.fsum(values) / len(values)), _percent(min(values))] if values else ["", ""]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
