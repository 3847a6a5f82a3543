"""What makes today's torch and the OpenMMLab libraries meet.

Importing this package is enough, in a config as `custom_imports = dict(imports=['sw_mm.compat'])`; `sw_mm.registry`
imports it too. Nothing heavy is imported for it: each cure waits until the module it concerns is imported, so any
subset of the libraries may be installed.

- `torch_load`: checkpoints of mmengine load with torch's guard against foreign pickles on.
- `mmcv_ops`: stands in for `mmcv._ext` where mmcv carries no compiled operators.
"""

from functools import cache

from sw_mm.compat import mmcv_ops, torch_load


@cache
def install() -> None:
    """Applies every cure, once."""
    torch_load.install()
    mmcv_ops.install()


install()
