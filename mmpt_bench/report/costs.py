"""What methods cost, each number marked by where it is from: measured on the machine, counted, or estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmpt_bench.board.board import Board, Row
from mmpt_bench.records.record import Record

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


def costs(board: Board, records: Mapping[str, Record]) -> tuple[Cost, ...]:
    """Returns the costs of a board's rows, in their order.

    Args:
        board: whose rows.
        records: by `eval_key`.
    """
    full_seconds = next((row.train_seconds for row in board.rows if row.label == board.reference), None)
    # A budget that is not known is that of adapters trained elsewhere, which have no seconds of training either.
    examples = board.budget["steps"] * board.budget["batch_size"] if board.budget else 0
    found = []
    for row in board.rows:
        own = [records[key] for cell in row.cells.values() for key in cell.eval_keys.values()]
        own = [record for record in own if record.is_evaluation_timed]
        seconds = sum(record.eval_seconds for record in own)
        found.append(
            Cost(
                row=row,
                examples_per_second=examples / row.train_seconds if row.train_seconds else None,
                questions_per_second=sum(record.n for record in own) / seconds if seconds else None,
                time_to_full=row.train_seconds / full_seconds if full_seconds and row.train_seconds else None,
                flops=4.0 * row.total + 2.0 * row.trainable if row.trains else None,
            )
        )
    return tuple(found)
