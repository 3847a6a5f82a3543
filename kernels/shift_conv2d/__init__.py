"""Shift-wise convolution (ShiftwiseConv, CVPR 2025, arXiv:2401.12736)."""

from .op import folded_shift_conv2d, shift_conv2d
from .strips import shift_strips
from .tables import ShiftTables, channel_split, shift_tables

__all__ = ['ShiftTables', 'channel_split', 'folded_shift_conv2d', 'shift_conv2d', 'shift_strips', 'shift_tables']
