"""What a board says, in two sentences: which method is better, and what the method under study costs and keeps.

Methods are called by their names in papers, where they have one: "full fine-tuning", not `full`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmpt_bench.board.board import Board, Row
from mmpt_bench.board.ranking import SUBJECT
from mmpt_bench.board.writers import numbers
from mmpt_bench.common.words import plural
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NAMES = {
    "mmpt": "MMPT", "lora": "LoRA", "prefix": "prefix tuning", "vpt": "visual prompt tuning",
    "full": "full fine-tuning", "projector": "projector-only tuning", "frozen": "the untuned baseline",
    "adapter": "bottleneck adapters", "dynamic": "input-conditioned prompts", "moe_lora": "a mixture of LoRA experts",
}  # fmt: skip
"""Of built-in methods, in plain words."""
LISTED = 4
"""Methods that a sentence names; more are counted."""
SCALE = "Here 0 % is guessing and 100 % is every answer right."


def verdict(board: Board) -> tuple[str, str]:
    """Returns two sentences. A method is called better only where the ranking says so; else what is missing is said."""
    ranked = board.ranked
    if not board.rows and not board.failures:
        return "Nothing can be said: no result here is of a task that the report knows.", "What is left out is below."
    if not board.rows:
        return f"Nothing can be said: all {len(board.failures)} runs of this board failed.", "Their reasons are below."
    if not ranked:
        reasons = sorted({row.unranked for row in board.rows if row.unranked})
        return f"Nothing can be ranked: {'; '.join(reasons) or 'no method has an overall score'}.", _asked(board)
    if len(ranked) == 1:
        return _alone(board, ranked[0]), "With a second method on the same tasks there would be something to compare."
    return _first(board, ranked), _second(board, ranked)


def _asked(board: Board) -> str:
    rows = number(len(board.rows))
    return f"{rows.capitalize()} {plural(len(board.rows), 'method has', 'methods have')} results, shown unranked below."


def _alone(board: Board, row: Row) -> str:
    return f"Only {named(row)} can be ranked: it scores {_overall(row)} over {_over(board)}. {SCALE}"


def _first(board: Board, ranked: Sequence[Row]) -> str:
    best = board.leaders
    top = best[0]
    if board.exploratory:
        others = ", ".join(f"{named(row)} {numbers.percent(row.overall)}" for row in sorted(ranked, key=_by_score)[1:3])
        return (
            f"No method is significantly better than another with fewer than {SEEDS_TO_CLAIM} seeds, here "
            f"{_seeds(board)}: by score alone {named(top)} leads with {_overall(top)} over {_tasks(board)}, before "
            f"{others}. {SCALE}"
        )
    if not any(pair.better for pair in board.comparisons):
        return (
            f"Over {_over(board)} no method is significantly different from any other; {named(top)} has the highest "
            f"score, {_overall(top)}. {SCALE}"
        )
    rest = [row for row in ranked if row not in best]
    if len(best) == 1:
        return _leader(board, top, ranked)
    worse = f"; {_listed(rest)} {plural(len(rest), 'is', 'are')} significantly worse" if rest else ""
    return (
        f"{_capital(named(top))} has the highest score over {_over(board)}, {_overall(top)}; {_listed(best[1:])} "
        f"{plural(len(best) - 1, 'is', 'are')} not significantly different from it{worse}. {SCALE}"
    )


def _leader(board: Board, best: Row, ranked: Sequence[Row]) -> str:
    rest = [row for row in ranked if row.label != best.label]
    others = named(rest[0]) if len(rest) == 1 else f"all {number(len(rest))} other methods"
    return (
        f"{_capital(named(best))} is significantly better than {others}: over {_over(board)} it scores "
        f"{_overall(best)}. {SCALE}"
    )


def _second(board: Board, ranked: Sequence[Row]) -> str:
    subject = _subject(ranked)
    if subject is None:
        trained = [row for row in board.leaders if row.trains]
        if not trained:
            return "Every tuned method scores less than one that is not tuned: tuning did not help here."
        cheapest = min(trained, key=lambda row: (row.trainable, row.label))
        return (
            f"Of the tuned methods that are not significantly different from the best, {named(cheapest)} trains the "
            f"fewest parameters, {numbers.share(cheapest)} of all."
        )
    full = next((row for row in ranked if row.label == board.reference and row.label != subject.label), None)
    cost = f"{_capital(named(subject))} trains {numbers.share(subject)} of the parameters"
    if full is None:
        return f"{cost} and scores {_overall(subject)}; full fine-tuning was not compared with it."
    if full.train_seconds and subject.train_seconds:
        cost += f" in {subject.train_seconds / full.train_seconds:.2g} × the time of full fine-tuning"
    unknown = "" if full.train_seconds and subject.train_seconds else "; what it costs in time was not measured"
    return f"{cost} and {_against(board, subject, full)}{unknown}."


def _against(board: Board, subject: Row, full: Row) -> str:
    """Returns what the comparison of the subject with full fine-tuning says."""
    pairs = {(c.first, c.second): c for c in board.comparisons}
    forth, back = pairs.get((subject.label, full.label)), pairs.get((full.label, subject.label))
    pair = forth or back
    if pair is None:
        return (
            f"scores {_overall(subject)} where full fine-tuning scores {_overall(full)}; with one seed the "
            "difference may be of these trainings alone"
        )
    sign = 1 if forth else -1
    low, high = sorted(100 * sign * end for end in pair.difference.interval)
    far = f"{100 * sign * pair.difference.estimate:+.1f} percentage points, {low:+.1f} to {high:+.1f}".replace("-", "−")
    if pair.better is None:
        return f"is not significantly different from full fine-tuning ({far})"
    return f"is significantly {'better' if pair.better == subject.label else 'worse'} than full fine-tuning ({far})"


def _subject(ranked: Sequence[Row]) -> Row | None:
    own = [row for row in ranked if row.method == SUBJECT]
    return max(own, key=lambda row: (row.overall or 0.0, row.label)) if own else None


def _by_score(row: Row) -> tuple[float, str]:
    return -(row.overall or 0.0), row.label


def _overall(row: Row) -> str:
    return f"{numbers.percent(row.overall)} (95 % interval {numbers.percents(row.overall_interval)})"


def _over(board: Board) -> str:
    # Where nothing trains there are none, and none are wanted.
    return f"{_tasks(board)} and {_seeds(board)}" if any(row.trains for row in board.rows) else _tasks(board)


def _tasks(board: Board) -> str:
    n = sum(column.counts for column in board.columns)
    return f"{number(n)} {plural(n, 'task', 'tasks')}"


def _seeds(board: Board) -> str:
    n = len(board.seeds)
    return f"{number(n)} {plural(n, 'seed', 'seeds')}" if n else "no seeds"


def named(row: Row) -> str:
    """Returns what a row's method is called in plain words, with the hyperparameters that its label names."""
    return NAMES.get(row.method, row.method) + row.label.removeprefix(row.method)


def _listed(rows: Sequence[Row]) -> str:
    if len(rows) > LISTED:
        return f"{number(len(rows))} others"
    return listed([named(row) for row in rows])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def number(n: int) -> str:
    """Returns a small number as a word."""
    return NUMBERS[n] if n < len(NUMBERS) else f"{n:,}"


def listed(names: Sequence[str]) -> str:
    """Returns "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
