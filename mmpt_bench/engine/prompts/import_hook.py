"""Makes PEFT know MMPT, VPT and the key-value prefix as soon as both packages are imported, in either order.

PEFT has no plug-in mechanism. Registering needs PEFT, and PEFT needs torch, which `mmpt_bench.mmpt` must not cost: so
the registration waits until PEFT itself is imported.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_peft() -> None:
    """Registers the methods now where PEFT is imported already, else right behind its import."""
    if "peft" in sys.modules:
        importlib.import_module("mmpt_bench.engine.prompts.peft")
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds `peft` where it is, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns PEFT's own spec with a loader that registers behind it."""
        if fullname != "peft":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Registering(spec.loader)
                return spec
        return None


class _Registering(Loader):
    """Loads as another loader does, and registers."""

    def __init__(self, inner: Loader) -> None:
        self.inner = inner

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Returns what the other loader makes."""
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the module, then registers."""
        self.inner.exec_module(module)
        importlib.import_module("mmpt_bench.engine.prompts.peft")

    def __getattr__(self, name: str) -> object:
        # Readers of a package's files ask its loader for more than loading.
        return getattr(self.inner, name)
