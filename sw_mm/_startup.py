"""What torch calls when it has been imported, by this distribution's entry point ``torch.backends``.

A config that names a type of scope ``sw_mm`` brings ``sw_mm.compat`` along, which is early enough for training. But
mmdetection's ``tools/test.py`` imports mmcv's operators before it reads any config, and fails there if mmcv has none.
"""

import warnings
from contextlib import suppress


def install() -> None:
    """Put the cures of ``sw_mm.compat`` in place; they cost nothing until mmengine or mmcv is imported.

    Libraries that cannot work together are only warned of here, and whatever else goes wrong waits for the next import
    of ``sw_mm.compat``: nothing may stand in the way of ``import torch``.
    """
    with suppress(Exception):
        try:
            import sw_mm.compat  # noqa: F401
        except RuntimeError as error:
            warnings.warn(f'sw_mm: {error}', stacklevel=2)
