"""Squeeze and excitation."""

import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scale each channel of a (N, C, H, W) map by a gate computed from the means of all channels.

    Source: Hu et al., CVPR 2018, section 3; the names ``down`` and ``up`` are those of the official UniRepLKNet code.

    Args:
        channels: C.
        hidden_channels: Width of the gate's only hidden layer.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden_channels, 1)
        self.up = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean(dim=(2, 3), keepdim=True)
        return x * self.up(F.relu(self.down(gate))).sigmoid()
