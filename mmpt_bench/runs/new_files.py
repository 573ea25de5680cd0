"""Files that a user begins with: an experiment, a task or a method, each complete, commented and ready to run."""

from __future__ import annotations

from pathlib import Path

from mmpt_bench.common.entries import folder
from mmpt_bench.common.errors import RequestError, unknown_name
from mmpt_bench.evaluation import task_catalog
from mmpt_bench.methods import method_catalog

NAMES = {"experiment": "experiment", "task": "my_task", "method": "my_method"}
"""Kind -> what its file is called by default."""


def new(kind: str, name: str = "", into: str | Path = ".") -> Path:
    """Writes an experiment, a task or a method to begin with, and returns its path.

        mb.new("task", "colours")     # ./colours.py, which `mb.check` passes and `mb.run(tasks=...)` takes

    Args:
        kind: "experiment", "task" or "method".
        name: of the file, without its ending, or with it.
        into: folder.

    Raises:
        RequestError: no such kind, a name that cannot be or is taken, or a file that is there already.
    """
    if kind not in NAMES:
        raise unknown_name("kind of file", kind, NAMES)
    ending = ".yaml" if kind == "experiment" else ".py"
    stem = (name or NAMES[kind]).removesuffix(ending).removesuffix(".yml")
    if kind != "experiment":
        known = task_catalog.task_entries() if kind == "task" else method_catalog.method_entries()
        if stem in known:
            raise RequestError(f"`{stem}` is a built-in {kind}: choose another name.")
    if not stem.replace("-", "_" if kind == "experiment" else "-").isidentifier():
        raise RequestError(f"`{name[:60]}` cannot be the name of a {kind}: letters, digits and `_`, no digit first.")
    path = Path(into) / f"{stem}{ending}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_text(kind, stem))
    except FileExistsError as error:
        raise RequestError(f"`{path}` is there already, and nothing is overwritten: choose another name.") from error
    except OSError as error:
        raise RequestError(f"`{path}` cannot be written: {error.strerror}.") from error
    return path


def _text(kind: str, name: str) -> str:
    """Returns the template of a kind with the new name where it stands for itself."""
    if kind == "experiment":
        template = (Path(__file__).parent / "experiment.yaml").read_text(encoding="utf-8")
        return template.replace("NAME.yaml", f"{name}.yaml")
    template = (folder("tasks" if kind == "task" else "baselines") / "_template.py").read_text(encoding="utf-8")
    title = name.replace("_", " ").strip().capitalize()
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
