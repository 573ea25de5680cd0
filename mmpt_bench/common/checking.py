"""What a conformance check returns, and how one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mmpt_bench.common.errors import BenchError

FAULTS = (
    BenchError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a checked file may raise."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check."""

    name: str
    """What is claimed."""
    ok: bool
    detail: str
    """What was seen, or why the check does not apply, or what is wrong."""


class CheckFailed(Exception):
    """A claim that does not hold."""


def require(claim: bool, message: str) -> None:
    """Raises CheckFailed with `message` unless `claim` holds."""
    if not claim:
        raise CheckFailed(message)


def outcome(name: str, check: Callable[[], str]) -> CheckResult:
    """Returns a check's result; an error inside the checked file is a failed check, and its text the detail."""
    try:
        return CheckResult(name, True, check())
    except CheckFailed as error:
        return CheckResult(name, False, str(error))
    except FAULTS as error:
        return CheckResult(name, False, f"{type(error).__name__}: {error}")
