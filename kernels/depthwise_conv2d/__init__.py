"""Depthwise convolution with any kernel size and any zero padding."""

from .op import depthwise_conv2d, depthwise_macs

__all__ = ['depthwise_conv2d', 'depthwise_macs']
