"""What stands before each of the four stages: the stem and the layers that halve the resolution."""

import itertools
from collections.abc import Sequence

from torch import nn

from .norm import LayerNorm2d


def overlapping_downsampling(in_channels: int, channels: Sequence[int]) -> nn.ModuleList:
    """Build UniRepLKNet's layers between stages: 3x3 convolutions with stride 2, each with a layer norm behind it.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each stage.
    """
    first = channels[0]
    stem = nn.Sequential(
        nn.Conv2d(in_channels, first // 2, 3, stride=2, padding=1),
        LayerNorm2d(first // 2),
        nn.GELU(),
        nn.Conv2d(first // 2, first, 3, stride=2, padding=1),
        LayerNorm2d(first),
    )
    rest = (
        nn.Sequential(nn.Conv2d(c, d, 3, stride=2, padding=1), LayerNorm2d(d)) for c, d in itertools.pairwise(channels)
    )
    return nn.ModuleList([stem, *rest])


def patch_downsampling(in_channels: int, channels: Sequence[int]) -> nn.ModuleList:
    """Build ConvNeXt's layers between stages: a stem on patches of 4x4, then layer norms and convolutions on 2x2.

    Nothing is padded: images have at least 32 pixels along each side.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each stage.
    """
    stem = nn.Sequential(nn.Conv2d(in_channels, channels[0], 4, stride=4), LayerNorm2d(channels[0]))
    rest = (nn.Sequential(LayerNorm2d(c), nn.Conv2d(c, d, 2, stride=2)) for c, d in itertools.pairwise(channels))
    return nn.ModuleList([stem, *rest])
