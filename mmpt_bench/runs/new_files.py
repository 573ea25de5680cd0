"""Files that a user begins with: an experiment, a task or a method, each complete, commented and ready to run."""

from __future__ import annotations

import re
from pathlib import Path

from mmpt_bench.common.entries import folder
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog

NAMES = {"experiment": "experiment", "task": "my_task", "method": "my_method"}
"""Kind -> what its file is called by default."""


TASKS = {
    "choice": "lettered_choice",
    "open": "open_answers",
    "caption": "captions",
    "multi-image": "several_images",
    "judged": "judged_answers",
}
"""Kind of task -> the example that is its template; without a kind, a classification of plain images."""
METHODS = {"prompts": "vpt", "adapter": "adapter", "objective": "_objective"}
"""Kind of method -> the file of `baselines/` that is its template; without a kind, parameters of the model itself."""
KINDS = {"task": TASKS, "method": METHODS}


def new(kind: str, name: str = "", into: str | Path = ".", of: str = "") -> Path:
    """Writes an experiment, a task or a method to begin with, and returns its path.

        mb.new("task", "colours")     # ./colours.py, which `mb.check` passes and `mb.run(tasks=...)` takes

    Args:
        kind: "experiment", "task" or "method".
        name: of the file, without its ending, or with it.
        into: folder.
        of: kind of task: "choice", "open", "caption", "multi-image", "judged"; by default a classification. Of method:
            "prompts", "adapter", "objective"; by default one that trains parameters of the model itself.

    Raises:
        RequestError: no such kind, a name that cannot be or is taken, or a file that is there already.
    """
    if kind not in NAMES:
        raise unknown_name("kind of file", kind, NAMES)
    if of and kind not in KINDS:
        raise RequestError(f"`--kind` is for tasks and methods: a new {kind} has one template.")
    if of and of not in KINDS[kind]:
        raise unknown_name(f"kind of {kind}", of, KINDS[kind])
    ending = ".yaml" if kind == "experiment" else ".py"
    stem = (name or NAMES[kind]).removesuffix(ending).removesuffix(".yml")
    if kind != "experiment":
        known = task_catalog.task_entries() if kind == "task" else method_catalog.method_entries()
        if stem in known:
            raise RequestError(f"`{stem}` is a built-in {kind}: choose another name.")
    if stem == "all":
        raise RequestError(f"`all` stands for every built-in {kind}: choose another name.")
    if kind == "method" and stem != stem.lower():
        raise RequestError(f"`{name[:60]}` cannot be the name of a method: small letters, digits and `_`.")
    if not stem.replace("-", "_" if kind == "experiment" else "-").isidentifier():
        raise RequestError(f"`{name[:60]}` cannot be the name of a {kind}: letters, digits and `_`, no digit first.")
    path = Path(into) / f"{stem}{ending}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(kind, stem, of))
    except FileExistsError as error:
        raise RequestError(f"`{path}` is there already, and nothing is overwritten: choose another name.") from error
    except OSError as error:
        raise RequestError(f"`{path}` cannot be written: {error.strerror}.") from error
    return path


def _text(kind: str, name: str, of: str = "") -> str:
    """Returns the template of a kind with the new name where it stands for itself."""
    if kind == "experiment":
        template = (Path(__file__).parent / "experiment.yaml").read_text(encoding="utf-8")
        return template.replace("NAME.yaml", f"{name}.yaml")
    title = name.replace("_", " ").strip().capitalize()
    if of and kind == "method":
        return _of_baseline(METHODS[of], name, title)
    if of:
        return _of_example(TASKS[of], name, title)
    template = (folder("tasks" if kind == "task" else "baselines") / "_template.py").read_text(encoding="utf-8")
    changes = {
        "task": (
            ('"""Copy this file: one line', f'"""{title}: one line'),
            ("Save it as tasks/<name>.py, or anywhere: `", "`"),
            ("./<name>.py", f"./{name}.py"),
            ('name="template"', f'name="{name}"'),
            ('f"template/', f'f"{name}/'),
            ('title="Template"', f'title="{title}"'),
        ),
        "method": (
            ('"""Copy this file to add a method: say here', f'"""{title}: say here'),
            ("`mmpt-bench check FILE`", f"`mmpt-bench check ./{name}.py`"),
            ('ClassVar[str] = "norms"', f'ClassVar[str] = "{name}"'),
        ),
    }
    for old, new in changes[kind]:
        template = template.replace(old, new)
    return template


def _of_example(example: str, name: str, title: str) -> str:
    """Returns an example with the new name where it stands for itself."""
    text = (folder("examples") / f"{example}.py").read_text(encoding="utf-8")
    old = example.replace("_", " ").capitalize()
    for before, after in (
        (f"examples/{example}.py", f"./{name}.py"),
        (f'name="{example}"', f'name="{name}"'),
        (f'title="{old}"', f'title="{title}"'),
        (f'f"{example}/', f'f"{name}/'),
        (" (an example, on generated", " (to begin with, on generated"),
    ):
        text = text.replace(before, after)
    return text


def _of_baseline(baseline: str, name: str, title: str) -> str:
    """Returns a method's file under a new name, which says what it was."""
    text = (folder("baselines") / f"{baseline}.py").read_text(encoding="utf-8")
    for before, after in (
        (r'\A"""', f'"""{title}: a method to begin with.\n\n'),
        (r'ClassVar\[str\] = "' + baseline.strip("_") + '"', f'ClassVar[str] = "{name}"'),
        (r"`mmpt-bench check FILE`", f"`mmpt-bench check ./{name}.py`"),
        (r"\n    structures = [^\n]*", ""),
    ):
        text = re.sub(before, after, text, count=1)
    return text
