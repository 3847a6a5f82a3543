"""Modules that backbones are made of; they know torch and the kernels, and no task library."""

from .blocks import GRNBlock, LayerNormBlock
from .checkpointing import checkpoint
from .drop_path import DropPath
from .layout import ToChannelsFirst, ToChannelsLast
from .norm import GlobalResponseNorm, LayerNorm2d, NormFactory, set_norm_eval
from .se import SqueezeExcite
from .shift_wise_conv import ShiftWiseConv2d

__all__ = [
    'DropPath',
    'GRNBlock',
    'GlobalResponseNorm',
    'LayerNorm2d',
    'LayerNormBlock',
    'NormFactory',
    'ShiftWiseConv2d',
    'SqueezeExcite',
    'ToChannelsFirst',
    'ToChannelsLast',
    'checkpoint',
    'set_norm_eval',
]
