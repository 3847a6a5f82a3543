"""Backbones, one module for each family."""

from .convnext_lk import LargeKernelConvNeXt
from .mobilenet_v2_lk import LargeKernelMobileNetV2
from .replknet import RepLKNet
from .shiftwise import ShiftWiseNet
from .slak import SLaK
from .unireplknet import UniRepLKNet

__all__ = ['LargeKernelConvNeXt', 'LargeKernelMobileNetV2', 'RepLKNet', 'SLaK', 'ShiftWiseNet', 'UniRepLKNet']
