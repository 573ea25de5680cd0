"""Where tests find the checkout, and data that stays outside it; the only file that counts folders."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
SHARED = ROOT.parent / "shared"
"""Data, published answers and cases beside the checkout, which may be absent."""
DATA, CASES = SHARED / "data", SHARED / "cases"
PUBLISHED = DATA / "published"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not beside this checkout")
