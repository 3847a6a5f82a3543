"""Changes a module of another package right after it has been imported, without importing it."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Patch = Callable[[ModuleType], None]


class _Watcher(MetaPathFinder):
    """Finder that finds nothing by itself, but has the awaited modules patched once they have run."""

    def __init__(self):
        self.awaited: dict[str, list[Patch]] = {}

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in self.awaited:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        loader, run = spec.loader, spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            del loader.exec_module
            run(module)
            for patch in self.awaited.pop(name, ()):
                patch(module)

        loader.exec_module = run_and_patch
        return spec


_watcher = _Watcher()


def after_import(name: str, patch: Patch) -> None:
    """Calls `patch(module)` now if the module is imported, else as soon as it is.

    Args:
        name: Full name of the module.
        patch: Receives the module; runs once.
    """
    if module := sys.modules.get(name):
        patch(module)
        return
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    _watcher.awaited.setdefault(name, []).append(patch)
