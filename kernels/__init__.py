"""Large-kernel operators as pure functions on tensors; they know no model."""

from ._dispatch import backends, use_backend
from .depthwise_conv2d import depthwise_conv2d, depthwise_macs
from .shift_conv2d import ShiftTables, channel_split, folded_shift_conv2d, shift_conv2d, shift_strips, shift_tables

__all__ = [
    'ShiftTables',
    'backends',
    'channel_split',
    'depthwise_conv2d',
    'depthwise_macs',
    'folded_shift_conv2d',
    'shift_conv2d',
    'shift_strips',
    'shift_tables',
    'use_backend',
]
