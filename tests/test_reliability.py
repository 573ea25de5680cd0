"""Every test that docs/reliability.md names is there."""

from __future__ import annotations

import re

from support.paths import ROOT


def test_every_fault_has_a_row_and_every_test_named_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 34))
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    for number, cell in rows:
        names = re.findall(r"`(test_\w+)`", cell)
        assert names or cell == "–", f"row {number} names no test"
        assert set(names) <= there, f"row {number}: {set(names) - there}"
