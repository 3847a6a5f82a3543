"""Depthwise convolution with any kernel size, stride, zero padding and dilation."""

from .geometry import depthwise_macs
from .op import depthwise_conv2d

__all__ = ['depthwise_conv2d', 'depthwise_macs']
