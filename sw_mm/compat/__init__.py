"""What makes today's torch and the OpenMMLab libraries meet.

Importing this package is enough, in a config as ``custom_imports = dict(imports=['sw_mm.compat'])``; ``sw_mm.registry``
imports it too. Nothing heavy is imported for it: each cure waits until the module it concerns is imported, so any
subset of the libraries may be installed.

- ``stacks``: the known traps of an installation are reported at once, each with its remedy.
- ``torch_load``: checkpoints of mmengine load with torch's guard against foreign pickles on.
- ``mmcv_ops``: stands in for ``mmcv._ext`` where mmcv carries no compiled operators.
- ``numpy2``: repairs what NumPy 2 broke in mmcv.
- ``launch``: ``--launcher pytorch`` and automatic mixed precision on machines without a GPU.
- ``forks``: ``mmseg::`` configs are inherited where the onedl forks are installed.
- ``compiling``: ``compile=True`` in a config trains with today's torch.
"""

from functools import cache

from sw_mm.compat import compiling, forks, launch, mmcv_ops, numpy2, stacks, torch_load


@cache
def install() -> None:
    """Apply every cure, once.

    Raises:
        RuntimeError: The installed libraries cannot work together; the message says what to change.
    """
    stacks.check()
    torch_load.install()
    mmcv_ops.install()
    launch.install()
    numpy2.install()
    compiling.install()
    forks.install()


install()
