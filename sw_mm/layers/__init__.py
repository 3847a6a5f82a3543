"""Modules that backbones are made of; they know torch and the kernels, and no task library."""

from .blocks import GRNBlock, LayerNormBlock
from .checkpointing import checkpoint
from .conv_norm import ConvNorm, DepthwiseConv2d, set_weights
from .downsampling import overlapping_downsampling, patch_downsampling
from .drop_path import DropPath
from .large_depthwise import DILATED_BRANCHES, DilatedReparamConv2d, LargeDepthwiseConv2d
from .layout import ToChannelsFirst, ToChannelsLast
from .norm import GlobalResponseNorm, LayerNorm2d, NormFactory, set_norm_eval
from .reparam import check_deploy
from .se import SqueezeExcite
from .shift_wise_conv import ShiftWiseConv2d

__all__ = [
    'DILATED_BRANCHES',
    'ConvNorm',
    'DepthwiseConv2d',
    'DilatedReparamConv2d',
    'DropPath',
    'GRNBlock',
    'GlobalResponseNorm',
    'LargeDepthwiseConv2d',
    'LayerNorm2d',
    'LayerNormBlock',
    'NormFactory',
    'ShiftWiseConv2d',
    'SqueezeExcite',
    'ToChannelsFirst',
    'ToChannelsLast',
    'check_deploy',
    'checkpoint',
    'overlapping_downsampling',
    'patch_downsampling',
    'set_norm_eval',
    'set_weights',
]
