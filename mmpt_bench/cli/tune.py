"""`mmpt-bench tune`: as many learning rates for every method, each try kept, and what was found."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mmpt_bench.cli.run import stopping
from mmpt_bench.common.entries import Entry
from mmpt_bench.common.errors import Interrupted, RequestError, unknown_name
from mmpt_bench.common.files import append_jsonl
from mmpt_bench.records import learning_rates
from mmpt_bench.records.store import Store
from mmpt_bench.runs.plan import trains
from mmpt_bench.runs.request import Request, adapter_of
from mmpt_bench.sources.corpora import load_corpus
from mmpt_bench.study.search import _keep, _known, _place

Range = tuple[float, float]


def ranges_of(texts: Sequence[str], methods: Sequence[Entry]) -> dict[str, Range]:
    """Returns method -> (lowest, highest) of `--range` options; RequestError for one that is none."""
    names = [entry.name for entry in methods]
    found: dict[str, Range] = {}
    for text in texts:
        method, equals, values = text.partition("=")
        if equals and method not in names:
            raise unknown_name("method", method, names, f"`--range {text}` names one that `--method` does not.")
        try:
            lowest, highest = (float(value) for value in values.split(","))
        except ValueError as error:
            raise RequestError(f"`--range {text}`: write METHOD=LOW,HIGH, as in `lora=1e-4,1e-1`.") from error
        if not 0 < lowest < highest < float("inf"):
            raise RequestError(f"`--range {text}`: the lowest rate is above 0 and below the highest.")
        found[method] = (lowest, highest)
    return found


def tune(request: Request, n_trials: int, n_extended: int, ranges: Mapping[str, Range]) -> int:
    """Searches learning rates, keeping every trial, and returns the exit code."""
    from mmpt_bench.engine.models.backbone import load_backbone
    from mmpt_bench.study.search import search

    for name, texts in request.overrides.items():
        if "learning_rate" in texts:
            raise RequestError(f"`--set {name}.learning_rate`: the rate is what is searched; `--range` says where.")
    store = Store(request.out)
    adapters = [adapter_of(entry, request.overrides.get(entry.name, {})) for entry in request.methods]
    adapters = [adapter for adapter in adapters if trains(adapter)]
    if not adapters:
        raise RequestError("None of these methods has a learning rate to search.")
    store.check_writable()
    corpus = load_corpus(request.corpus)
    backbone = load_backbone(request.backbone, request.dtype, request.device, request.offline)
    with stopping() as stop:
        for adapter in adapters:
            place = _place(adapter, backbone.fingerprint, corpus.fingerprint, request)

            def tell(rate: float, loss: float | None, why: str, seconds: float, place: dict[str, Any] = place) -> None:
                result = {"rate": rate, "loss": loss, "reason": why, "seconds": round(seconds, 1)}
                now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
                append_jsonl(store.path(learning_rates.TRIALS), place | result | {"time": now})
                said = f"validation loss {loss:.4f}" if loss is not None else f"failed: {why}"
                click.echo(f"{place['method']}: learning rate {rate:g}: {said}", err=True)

            known = _known(store, place)
            wanted = ranges.get(adapter.name)
            try:
                choice = search(
                    backbone, corpus, adapter, request.budget, n_trials, n_extended, wanted, known, tell, stop
                )
            except Interrupted:
                click.echo("Stopped. Every finished trial is kept; the same command goes on from there.", err=True)
                return 130
            _keep(store, choice)
            click.echo(_said(choice))
    return 0


def _said(choice: learning_rates.Choice) -> str:
    finished = [loss for _, loss in choice.trials if loss is not None]
    if not finished:
        return f"{choice.method}: all {len(choice.trials)} trials failed; `run` uses the documented default."
    edge = "; it is at the edge of what was tried, a better one may lie beyond" if choice.at_edge else ""
    failed = len(choice.trials) - len(finished)
    lost = f", {failed} failed" if failed else ""
    return f"{choice.method}: {choice.best:g} of {len(choice.trials)} rates (loss {min(finished):.4f}{lost}){edge}"
