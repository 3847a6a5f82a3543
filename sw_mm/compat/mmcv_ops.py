"""Let ``mmcv.ops`` work where mmcv carries no compiled operators, as in the mmcv-lite wheels.

mmcv keeps its operators in the extension module ``mmcv._ext``. If none can be found, ``sw_mm/compat/_mmcv_ext.py``
takes its place: the operators that mmdet's and mmseg's models commonly reach run on torchvision or plain torch, on any
device and with gradients; calling another one raises an error that names it. A compiled ``mmcv._ext`` is always
preferred.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

STAND_IN = Path(__file__).with_name('_mmcv_ext.py')


class _StandInFinder(MetaPathFinder):
    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        return spec_from_file_location(name, STAND_IN) if name == 'mmcv._ext' else None


_finder = _StandInFinder()


def install() -> None:
    """Have ``import mmcv._ext`` fall back to the stand-in; the finder is asked only after all others."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
