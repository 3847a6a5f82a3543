"""Change a module of another package right after it has been imported, without importing it."""

import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Patch = Callable[[ModuleType], None]

_awaited: dict[str, list[Patch]] = {}


class _WatchedSpec(ModuleSpec):
    """Spec of an awaited module, which has it patched at the end of its import.

    The import system keeps in ``_initializing`` whether the module is still being run. Another loader would not do: a
    module may be running already when it is first asked for, namely if it is the one whose ``import torch`` loads us.
    """

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        # A module whose import failed is no longer there; its patches wait for the next attempt.
        if name == '_initializing' and not value and self.name in sys.modules:
            self.__class__ = ModuleSpec
            for patch in _awaited.pop(self.name, ()):
                patch(sys.modules[self.name])


class _Watcher(MetaPathFinder):
    """Finder that leaves finding to the others, and has the awaited modules watched."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in _awaited:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in finders if (spec := finder.find_spec(name, path, target))), None)
        if spec is not None:
            spec.__class__ = _WatchedSpec
        return spec


_watcher = _Watcher()


def after_import(name: str, patch: Patch) -> None:
    """Call ``patch(module)`` now if the module is imported, else as soon as it is.

    Args:
        name: Full name of the module.
        patch: Receives the module; runs once.
    """
    module = sys.modules.get(name)
    spec = getattr(module, '__spec__', None)
    if module and not getattr(spec, '_initializing', False):
        patch(module)
        return
    if _watcher not in sys.meta_path:
        sys.meta_path.insert(0, _watcher)
    _awaited.setdefault(name, []).append(patch)
    if module:
        spec.__class__ = _WatchedSpec
