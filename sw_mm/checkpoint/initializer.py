"""The weight initialiser that configs name."""

import logging
import os

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from .download import check_sha256
from .official import load_official
from .releases import releases_of


class OfficialPretrained:
    """Start a backbone from the weights its authors released, given as ``init_cfg``.

    In a config: ``init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint='sw_tiny.pth')``. Without a checkpoint the
    backbone keeps its fresh weights, and one warning says which files there are and how to pass one. In a list of
    several ``init_cfg`` it has to come last.

    Args:
        checkpoint: Path of the file, or an https URL, which goes through torch's cache; None trains from scratch.
        sha256: SHA-256 of the file, or at least its first 8 digits; another file is refused.
        ema: Take the averaged weights (``model_ema``) of a file that keeps them beside the trained ones.

    Raises:
        TypeError: If ``checkpoint`` is no path, or ``ema`` is no bool.
        ValueError: If ``sha256`` is no such number.
    """

    def __init__(self, checkpoint: str | os.PathLike | None = None, sha256: str | None = None, ema: bool = False):
        if checkpoint is not None and not isinstance(checkpoint, str | os.PathLike):
            raise TypeError(f'checkpoint must be a path or None; got {checkpoint!r}')
        if not isinstance(ema, bool):
            raise TypeError(f'ema must be True or False; got {ema!r}')
        check_sha256(sha256)
        self.checkpoint, self.sha256, self.ema = checkpoint, sha256, ema

    def __call__(self, module: nn.Module) -> None:
        if self.checkpoint is None:
            print_log(self._advice(module), logger='current', level=logging.WARNING)
            return
        load_official(module, self.checkpoint, self.sha256, self.ema)
        print_log(f'{type(module).__name__} starts from {self.checkpoint}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'OfficialPretrained: loaded from {self.checkpoint}')

    @staticmethod
    def _advice(module: nn.Module) -> str:
        start = f'{type(module).__name__} starts from random weights, as init_cfg.checkpoint is None.'
        releases = releases_of(module)
        if not releases:
            return f'{start} No official weights are known for this architecture.'
        listed = '; '.join(f'{release.name} ({release.source})' for release in releases)
        return (
            f'{start} The official weights, for the released settings of arch={module.arch!r}, are {listed}. Download '
            'them and add `--cfg-options model.backbone.init_cfg.checkpoint=FILE`; a direct https link does as well.'
        )
