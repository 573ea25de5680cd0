"""A user's file that fails while it is imported is refused with its line, and can be corrected in the same process."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpt_bench.common.errors import RequestError
from mmpt_bench.evaluation.task_catalog import find_tasks, load_task

FAILS = {
    "from mmpt_bench import Nothing": r"line 2: ImportError: .*Nothing.*`_template\.py`",
    "import no_such_package": r"line 2: ModuleNotFoundError: .*no_such_package",
    "1 / 0": "line 2: ZeroDivisionError: division by zero",
    "raise KeyError('x')": "line 2: KeyError: 'x'",
}


@pytest.mark.parametrize("line", FAILS)
def test_a_file_that_fails_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f'"""A task."""\n{line}\n')
    for _ in range(2):
        with pytest.raises(RequestError, match=rf"`mine\.py` fails when it is imported: {FAILS[line]}"):
            load_task(find_tasks(str(path))[0])
    path.write_text("from mmpt_bench import Accuracy\n")
    with pytest.raises(RequestError, match="exports no task"):
        load_task(find_tasks(str(path))[0])


@pytest.mark.parametrize(("name", "said"), [("notes.txt", "must be a Python identifier and end in .py"),
                                            ("all.py", "`all` stands for every built-in task")])  # fmt: skip
def test_a_file_that_can_be_no_task_says_why(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=said):
        find_tasks(name)
