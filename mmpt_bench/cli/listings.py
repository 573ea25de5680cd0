"""What there is: tasks, methods, backbones and runs, listed and shown without importing torch where that can be."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpt_bench.cli.options import BACKBONE, JSON, OUT, command_on, with_family
from mmpt_bench.cli.streams import echo
from mmpt_bench.common.errors import unknown_name

if TYPE_CHECKING:
    from mmpt_bench.common import entries
    from mmpt_bench.records.record import Record

Fields = dict[str, Any]
MOST_NAMES = 12
"""Of each kind that a message lists."""


@click.command()
@click.argument("what", type=click.Choice(["tasks", "methods", "backbones", "runs"]), default="tasks")
@OUT
@JSON
def ls(what: str, out: Path, as_json: bool) -> None:
    """List tasks, methods, backbones, or recorded runs."""
    _show_list(what, out, as_json)


@click.command()
@click.argument("name")
@BACKBONE
@OUT
@JSON
@with_family
def show(name: str, backbone: str, out: Path, as_json: bool) -> None:
    """Show one task, method, backbone or run in full; for a method, its trainable parameters on the backbone.

    A board counts what a method adds to the backbone in its total too.
    """
    _show_one(name, backbone, out, as_json)


def _show_list(what: str, out: Path, as_json: bool) -> None:
    """Prints the tasks, methods, backbones or runs there are, one a line."""
    rows = {"tasks": _tasks, "methods": _methods, "backbones": _backbones, "runs": lambda: _runs(out)}[what]()
    if as_json:
        _print_json(rows)
    elif not rows:
        click.echo(
            f"There are no runs in `{out}` yet: `{command_on(out, 'run', '--method', 'mmpt', '--tasks', 'mme,pope')}` "
            "makes the first.",
            err=True,
        )
    else:
        _print(rows)


def _show_one(name: str, backbone: str, out: Path, as_json: bool) -> None:
    """Prints everything that is known of a task, a method or a run; raises RequestError where it is none of them."""
    from mmpt_bench.evaluation import task_catalog
    from mmpt_bench.methods import method_catalog
    from mmpt_bench.methods.method_catalog import is_method

    tasks, methods = task_catalog.task_entries(), method_catalog.method_entries()
    if name in tasks or (name.endswith(".py") and not is_method(Path(name))):
        shown = _task(task_catalog.find_tasks(name)[0])
    elif name == "embedded" or (name not in methods and Path(name).is_dir()):
        shown = _backbone(name)
    elif name in methods or name.endswith((".py", ".json")) or name.startswith("peft:"):
        shown = _method(method_catalog.find_methods(name)[0], backbone, out)
    else:
        records = _records(out)
        runs = sorted({record.run for record in records})
        match = [run for run in runs if run.startswith(name)]
        if len(match) != 1:
            kinds = {"tasks": [*tasks], "methods": [*methods], "backbones": ["embedded"], "runs": runs}
            for kind, names in kinds.items():
                more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
                echo(f"{kind}: {', '.join(names[:MOST_NAMES]) or 'none yet'}{more}", err=True)
            known = [each for names in kinds.values() for each in names]
            raise unknown_name("task, method, backbone or run", name, known, "`mmpt-bench ls KIND` lists them.")
        shown = {"run": match[0], "records": [_record(r) for r in records if r.run == match[0]]}
    if as_json:
        _print_json(shown)
    else:
        _print_fields(shown)


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=1))


def _tasks() -> list[Fields]:
    from mmpt_bench.evaluation import task_catalog

    return [{"task": e.name, "summary": e.summary} for e in task_catalog.task_entries().values()]


def _methods() -> list[Fields]:
    from mmpt_bench.methods import method_catalog

    return [{"method": e.name, "summary": e.summary} for e in method_catalog.method_entries().values()]


def _backbones() -> list[Fields]:
    from mmpt_bench.engine.models.families import FAMILIES

    return [
        {
            "backbone": "embedded",
            "summary": "4.2 M parameters, LLaVA architecture, in the package; knows generated scenes alone",
        },
        {
            "backbone": "FOLDER",
            "summary": f"a model in Hugging Face form (safetensors): {', '.join(f.title for f in FAMILIES.values())}",
        },
        {"backbone": "OWNER/MODEL", "summary": "the same on the Hugging Face hub, with @REVISION where one is meant"},
    ]


def _backbone(name: str) -> Fields:
    from mmpt_bench.engine.models.loading import anatomy_of
    from mmpt_bench.sources.weights import backbone_fingerprint

    _, total, _ = anatomy_of(name)
    return {"kind": "backbone", "name": name, "parameters": total, "fingerprint": backbone_fingerprint(name)}


def _records(out: Path) -> list[Record]:
    from mmpt_bench.records.store import Store

    return Store(out).records()


def _runs(out: Path) -> list[Fields]:
    from mmpt_bench.records.recipe import learnt

    rows: dict[tuple[str, str], Fields] = {}
    for record in _records(out):
        first = {"run": record.run, "seed": record.seed, "suite": record.suite}
        first |= {"learnt": learnt(record.corpus, record.stage)} if record.trainable else {}
        row = rows.setdefault((record.run, record.suite), first | {"tasks": []})
        if record.status == "ok":
            row["tasks"] += [] if record.task in row["tasks"] else [record.task]
        else:
            row["failed"] = record.reason
    return list(rows.values())


def _task(entry: entries.Entry) -> Fields:
    from mmpt_bench.evaluation import task_catalog

    task = task_catalog.load_task(entry)
    plain = {f.name: getattr(task, f.name) for f in dataclasses.fields(task)}
    shown = {name: value for name, value in plain.items() if isinstance(value, str | int | tuple) and value != ()}
    return {"kind": "task", "file": entry.path.name, "about": _docstring(entry), **shown}


def _method(entry: entries.Entry, backbone: str, out: Path) -> Fields:
    """Returns a method's fields with their defaults, and what it trains on the backbone, counted without weights."""
    from mmpt_bench.engine.models.loading import anatomy_of
    from mmpt_bench.methods import method_catalog

    adapter = method_catalog.load_method(entry)()
    anatomy, total, _ = anatomy_of(backbone)
    count = adapter.count(anatomy)
    in_paper = adapter.paper_count(anatomy)
    printed = {"trainable_as_published": in_paper} if in_paper is not None else {}
    published = {name: {"count": number, "share": number / total} for name, number in printed.items()}
    return {
        "kind": "method",
        "file": entry.path.name,
        "about": _docstring(entry),
        "fields": dataclasses.asdict(adapter),
        "learning_rates_documented": list(adapter.lr_range),
        **(_rates_used(adapter, backbone, out) if adapter.trains else {}),
        "backbone": backbone,
        "trainable": count,
        "total_of_the_backbone": total,
        "share_of_the_backbone": count / total,
        **published,
    }


def _rates_used(adapter: Any, backbone: str, out: Path) -> Fields:
    """Returns which learning rate `run` takes where: the one of a search on the embedded backbone, else the default.

    Searches of a results folder come before those that ship with the package, as in a plan.
    """
    from mmpt_bench.records import learning_rates
    from mmpt_bench.records.budget import Budget
    from mmpt_bench.sources.corpora import EMBEDDED, load_corpus
    from mmpt_bench.sources.weights import backbone_fingerprint

    used: Fields = {"where_no_search_fits": adapter.learning_rate}
    if backbone == EMBEDDED:
        params, corpus = dataclasses.asdict(adapter), load_corpus(EMBEDDED).fingerprint
        files = (out / learning_rates.FILE, learning_rates.shipped())
        known = [choice for file in files for choice in learning_rates.read(file)]
        name, fingerprint = adapter.name, backbone_fingerprint(backbone)
        wanted = learning_rates.Wanted(name, params, fingerprint, corpus, Budget(), defaults=params)
        if (found := learning_rates.look_up(known, wanted)) is not None:
            used |= {"on_embedded": found[0], "on_embedded_because": found[1]}
    return {"learning_rates_used_by_run": used}


def _docstring(entry: entries.Entry) -> str:
    return ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8"))) or ""


def _record(record: Record) -> Fields:
    return {k: v for k, v in dataclasses.asdict(record).items() if k not in ("parsed_choices", "ranked_choices")}


def _print(rows: list[Fields]) -> None:
    first, *_ = rows[0]
    width = max(len(str(row[first])) for row in rows)
    for row in rows:
        rest = "; ".join(_plain(name, value) for name, value in row.items() if name != first)
        echo(f"{row[first]:<{width}}  {rest}", indent=" " * (width + 2))


def _plain(name: str, value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if name in ("summary", "suite") else f"{name} {text}"


def _print_fields(shown: Fields, indent: str = "") -> None:
    for name, value in shown.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}:")
            _print_fields(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for each in value:
                click.echo(f"{indent}{name[:-1]} {each.get('task', '')}:")
                _print_fields(each, indent + "  ")
        elif name.startswith("share"):
            click.echo(f"{indent}{name}: {value:.4%}")
        elif isinstance(value, int) and not isinstance(value, bool):
            click.echo(f"{indent}{name}: {value:,}")
        else:
            text = value if not isinstance(value, tuple | list) else ", ".join(map(str, value))
            # The lines of a docstring are as long as the code's.
            text = re.sub(r"(?<!\n)\n(?![\n ])", " ", text) if name == "about" else text
            echo(f"{indent}{name}: {text}", indent=indent + "  ")
