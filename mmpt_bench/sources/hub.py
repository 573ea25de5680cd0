"""Files of the Hugging Face hub, through its own verified cache; every fault of it becomes one sentence."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmpt_bench.common.errors import MachineError, RequestError


@contextmanager
def asking(what: str, hint: str, offline: bool) -> Iterator[None]:
    """Turns what goes wrong with the hub inside into an error for the user.

    Args:
        what: what is asked for: "data set `lmms-lab/MME` at d6c9023f".
        hint: what to do where it cannot be had, a whole sentence.
        offline: no socket is opened.

    Raises:
        RequestError: the hub has no such repository or revision, no such names, or it is not open.
        MachineError: the files are not in the cache, and the hub cannot be reached, does not answer, or must not be
            asked. How long each answer is waited for is `HF_HUB_ETAG_TIMEOUT`, in seconds.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hooks = get_session().event_hooks["request"]
    if _bounded not in hooks:
        hooks.append(_bounded)
    # That of its library for HTTP, which has changed: timeouts and faults of proxies are of this class alone.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    library = logging.getLogger("huggingface_hub")
    level = library.level
    library.setLevel(logging.ERROR)  # Its warnings are of retries, whose end is said below.
    try:
        yield
    except HFValidationError as error:
        raise RequestError(f"There is no {what} here, and the hub has no such names. {hint}") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise RequestError(f"The hub has no {what}, or it is not open to you.") from error
    except (LocalEntryNotFoundError, http_error, OSError, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            raise MachineError(f"What answers for the hub sent no answer of the hub for {what}. {hint}") from error
        why = "`--offline` forbids asking the hub" if offline else _why(error, constants.HF_HUB_ETAG_TIMEOUT)
        raise MachineError(f"The {what} is not in the local cache, and {why}. {hint}") from error
    finally:
        library.setLevel(level)


def _bounded(request: Any) -> None:
    """Bounds how long each part of an answer is waited for: the hub's own client waits forever for a listing."""
    from huggingface_hub import constants

    wanted = request.extensions.get("timeout") or {}
    parts = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = {part: wanted.get(part) or constants.HF_HUB_ETAG_TIMEOUT for part in parts}


def _why(error: BaseException | None, seconds: int) -> str:
    """Returns what kept the hub from answering, by an error and what it came from."""
    proxies = [name for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy") if os.environ.get(name)]
    by = f" by the proxy in `{proxies[0]}`" if proxies else ""
    while error is not None:
        if "Timeout" in type(error).__name__:
            return f"the hub did not answer within {seconds} s{by}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 429:
            return "the hub takes no more requests for now (status 429): wait some minutes"
        if status is not None:
            return f"the hub answered with status {status}{by}"
        error = error.__cause__ or error.__context__
    return f"the hub could not be reached{by}"


def snapshot(
    repository: str, files: Sequence[str], offline: bool, revision: str | None = None, dataset: bool = False
) -> Path:
    """Returns the local folder of some files (patterns) of a repository, fetched where the cache lacks them."""
    from huggingface_hub import snapshot_download

    kind = "dataset" if dataset else "model"
    return Path(
        snapshot_download(
            repository, repo_type=kind, revision=revision, allow_patterns=list(files), local_files_only=offline
        )
    )


def dataset_files(repository: str, revision: str) -> list[str]:
    """Returns the names of a data set's files on the hub."""
    return repository_files(repository, revision, "dataset")


def repository_files(repository: str, revision: str | None, kind: str) -> list[str]:
    """Returns the names of the files of a repository of some kind ("model", "dataset") on the hub."""
    from huggingface_hub import HfApi

    # One request: a listing of folders is asked for six times where nobody answers.
    hub = HfApi()
    found = (hub.dataset_info if kind == "dataset" else hub.model_info)(repository, revision=revision)
    return [file.rfilename for file in found.siblings or ()]


def is_offline(offline: bool) -> bool:
    """Returns whether the hub must not be asked: by the option, or by `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants

    return offline or constants.HF_HUB_OFFLINE
