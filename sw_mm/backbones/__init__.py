"""Backbones, one module for each family."""

from .convnext_lk import LargeKernelConvNeXt
from .shiftwise import ShiftWiseNet
from .slak import SLaK

__all__ = ['LargeKernelConvNeXt', 'SLaK', 'ShiftWiseNet']
