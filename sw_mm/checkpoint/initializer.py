"""The weight initialiser that configs name."""

import logging
import os

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from .official import load_official
from .releases import official_release


class OfficialPretrained:
    """Start a backbone from the weights its authors released, given as ``init_cfg``.

    In a config: ``init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint='sw_tiny.pth')``. Without a checkpoint the
    backbone keeps its fresh weights, and one warning says which file is missed and how to pass it. In a list of several
    ``init_cfg`` it has to come last.

    Args:
        checkpoint: Path of the file; None trains from scratch.

    Raises:
        TypeError: If ``checkpoint`` is no path.
    """

    def __init__(self, checkpoint: str | os.PathLike | None = None):
        if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
            raise TypeError(f'checkpoint must be a path or None; got {checkpoint!r}')
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        if self.checkpoint is None:
            print_log(self._advice(module), logger='current', level=logging.WARNING)
            return
        load_official(module, self.checkpoint)
        print_log(f'{type(module).__name__} starts from {self.checkpoint}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'OfficialPretrained: loaded from {self.checkpoint}')

    @staticmethod
    def _advice(module: nn.Module) -> str:
        start = f'{type(module).__name__} starts from random weights, as init_cfg.checkpoint is None.'
        release = official_release(module)
        if release is None:
            return f'{start} No official weights are known for this architecture.'
        return (
            f'{start} The official weights, for the released settings of arch={module.arch!r}, are {release.name} '
            f'({release.source}); download them and add `--cfg-options model.backbone.init_cfg.checkpoint=FILE`.'
        )
