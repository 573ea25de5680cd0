"""What a board says, in two sentences: which method is better, and what the method under study costs and keeps."""

from __future__ import annotations

from collections.abc import Sequence

from mmpt_bench.board.board import Board, Row
from mmpt_bench.board.ranking import SUBJECT
from mmpt_bench.board.writers import numbers
from mmpt_bench.stats.claims import SEEDS_TO_CLAIM

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def verdict(board: Board) -> tuple[str, str]:
    """Returns two sentences. A method is called better only where the ranking says so; else what is missing is said."""
    ranked = board.ranked
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
    return (
        f"Only {row.label} can be ranked: it stands {_overall(row)} of the way from guessing to everything right, over "
        f"{_over(board)}."
    )


def _first(board: Board, ranked: Sequence[Row]) -> str:
    best = board.leaders
    top = best[0]
    if board.exploratory:
        others = ", ".join(f"{row.label} {numbers.percent(row.overall)}" for row in sorted(ranked, key=_by_score)[1:3])
        return (
            f"No method can be called better than another with {_seeds(board)} ({number(SEEDS_TO_CLAIM)} are needed): "
            f"by score alone {top.label} leads with {_overall(top)} of the way from guessing to everything right over "
            f"{_tasks(board)}, before {others}."
        )
    if not any(pair.better for pair in board.comparisons):
        return (
            f"Over {_over(board)} no method is separated from any other; {top.label} has the highest score, "
            f"{_overall(top)} of the way from guessing to everything right."
        )
    rest = len(ranked) - len(best)
    if len(best) == 1:
        return _leader(board, top, ranked)
    worse = f"{number(rest)} {plural(rest, 'is', 'are')} significantly worse" if rest else "none is separated from it"
    return (
        f"{top.label} has the highest score over {_over(board)}, {_overall(top)} of the way from guessing to "
        f"everything right; {listed([row.label for row in best[1:]])} {plural(len(best) - 1, 'is', 'are')} not "
        f"separated from it, {worse}."
    )


def _leader(board: Board, best: Row, ranked: Sequence[Row]) -> str:
    rest = len(ranked) - 1
    stands = f"over {_over(board)} it reaches {_overall(best)} of the way from guessing to everything right"
    if rest == 1:
        other = next(row.label for row in ranked if row.label != best.label)
        return f"{best.label} is better than {other}: {stands}."
    return f"{best.label} stands first: {stands}, significantly more than all {number(rest)} other methods."


def _second(board: Board, ranked: Sequence[Row]) -> str:
    subject = _subject(ranked)
    if subject is None:
        trained = [row for row in board.leaders if row.trains]
        if not trained:
            return "Every method that trains is worse than one that does not: what is tuned here did not help."
        cheapest = min(trained, key=lambda row: (row.trainable, row.label))
        return (
            f"Of the trained methods that are not separated from the best, {cheapest.label} trains the fewest "
            f"parameters, {numbers.share(cheapest)} of all."
        )
    full = next((row for row in ranked if row.label == board.reference and row.label != subject.label), None)
    cost = f"{subject.label} trains {numbers.share(subject)} of the parameters"
    if full is None:
        return f"{cost} and reaches {_overall(subject)}; full fine-tuning was not compared with it."
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
            f"reaches {_overall(subject)} where full fine-tuning reaches {_overall(full)}; with one seed the "
            "difference may be of these checkpoints alone"
        )
    sign = 1 if forth else -1
    low, high = sorted(100 * sign * end for end in pair.difference.interval)
    far = f"{100 * sign * pair.difference.estimate:+.1f} points, {low:+.1f} to {high:+.1f}".replace("-", "−")
    if pair.better is None:
        return f"is not separated from it ({far})"
    return f"is significantly {'better' if pair.better == subject.label else 'worse'} than it ({far})"


def _subject(ranked: Sequence[Row]) -> Row | None:
    own = [row for row in ranked if row.method == SUBJECT]
    return max(own, key=lambda row: (row.overall or 0.0, row.label)) if own else None


def _by_score(row: Row) -> tuple[float, str]:
    return -(row.overall or 0.0), row.label


def _overall(row: Row) -> str:
    return f"{numbers.percent(row.overall)} ({numbers.percents(row.overall_interval)})"


def _over(board: Board) -> str:
    # Where nothing trains there are none, and none are wanted.
    return f"{_tasks(board)} and {_seeds(board)}" if any(row.trains for row in board.rows) else _tasks(board)


def _tasks(board: Board) -> str:
    n = sum(column.counts for column in board.columns)
    return f"{number(n)} {plural(n, 'task', 'tasks')}"


def _seeds(board: Board) -> str:
    n = len(board.seeds)
    return f"{number(n)} {plural(n, 'seed', 'seeds')}" if n else "no seeds"


def number(n: int) -> str:
    """Returns a small number as a word."""
    return NUMBERS[n] if n < len(NUMBERS) else f"{n:,}"


def plural(n: int, one: str, several: str) -> str:
    """Returns the word for one thing or for several."""
    return one if n == 1 else several


def listed(names: Sequence[str]) -> str:
    """Returns "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
