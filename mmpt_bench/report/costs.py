"""What methods cost, each number marked by where it is from: measured on the machine, counted, or estimated."""

from __future__ import annotations

from dataclasses import dataclass

from mmpt_bench.board.board import Board, Row

FLOPS = (
    "a training step takes at most 4 P + 2 T FLOPs a token, P all parameters (2 P to go forward, at most 2 P to carry "
    "gradients back), T the trained ones (2 T for their gradients); attention over the sequence and the tokens that "
    "prompts add are not in it. The share of parameters that is trained is therefore not the share of the work."
)


@dataclass(frozen=True)
class Cost:
    """The costs of one row; None where nothing was measured."""

    row: Row
    examples_per_second: float | None
    """Training examples, measured: those of the budget by the seconds of a training."""
    questions_per_second: float | None
    """Evaluation, measured: all questions by the seconds of all evaluations that had an idle machine to themselves."""
    time_to_full: float | None
    """Training seconds over those of full fine-tuning, both measured."""
    flops: float | None
    """Of a training step, a token, at most; estimated, see `FLOPS`."""


def costs(board: Board) -> tuple[Cost, ...]:
    """Returns the costs of a board's rows, in their order."""
    full_seconds = next((row.train_seconds for row in board.rows if row.label == board.reference), None)
    # A budget that is not known is that of adapters trained elsewhere, which have no seconds of training either.
    examples = board.budget["steps"] * board.budget["batch_size"] if board.budget else 0
    found = []
    for row in board.rows:
        # Beside a teacher, the steps at equal compute are not the budget's, and its passes are work too.
        alone = not row.objective
        found.append(
            Cost(
                row=row,
                examples_per_second=examples / row.train_seconds if row.train_seconds and alone else None,
                questions_per_second=1 / row.question_seconds if row.question_seconds else None,
                time_to_full=row.train_seconds / full_seconds if full_seconds and row.train_seconds else None,
                flops=4.0 * row.total + 2.0 * row.trainable if row.trains and alone else None,
            )
        )
    return tuple(found)
