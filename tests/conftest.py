"""Before torch is imported: workers of a test run share the cores, so each computes in one thread."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts with the file whose tests take longest, so that no worker ends with it alone."""
    items.sort(key=lambda item: item.path.name != "test_results.py")
