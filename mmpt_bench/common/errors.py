"""What can go wrong, said in one line a user can act on, and the exit code it leads to.

Exit codes: 0 ok, 1 our bug (a traceback), 2 the request is wrong, 3 the machine is not ready (package, model, data,
network), 4 a run failed, 5 a record cannot be trusted, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable


class BenchError(Exception):
    """A fault with a message for the user; never a bug of ours."""

    exit_code = 1


class RequestError(BenchError):
    """The request is wrong: an unknown name, a bad value, a missing or malformed file the user named."""

    exit_code = 2


class MachineError(BenchError):
    """The machine is not ready: a package, a model, data or the network is missing."""

    exit_code = 3


class RunFailed(BenchError):
    """A run started and could not finish; it is recorded as failed."""

    exit_code = 4


class UntrustedRecord(BenchError):
    """A stored record, checkpoint or weight file contradicts its own checksum or key."""

    exit_code = 5


def shown(value: object) -> str:
    """Returns a value of somebody's data for a message, cut to 40 characters."""
    text = repr(value[:50] if isinstance(value, str | bytes) else value)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


LISTED = 120
"""Characters of known names that a message lists: it stays one line."""


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> RequestError:
    """Returns the error for a name that nothing answers to, with the nearest known one.

    Args:
        kind: what was looked for, in the singular: "task", "method", "field".
        hint: what to do to see all known ones, a whole sentence.
    """
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    close = next((n for n in names if near and n.lower() == near[0]), None)
    few = len(names) <= 12 and sum(map(len, names)) <= LISTED
    guess = f" Did you mean `{close}`?" if close else f" Known: {', '.join(names)}." if few else ""
    guess = guess if names else " There is none yet."
    return RequestError(f"There is no {kind} `{name}`.{guess}{' ' + hint if hint else ''}")


class Interrupted(BaseException):
    """Stopped between two steps, or two batches of answers; all that was done is on the disk."""
