"""Squeeze and excitation."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scale each channel of a (N, C, H, W) map by a gate computed from the means of all channels.

    The gate is computed in the dtype of the parameters, under autocast too: it is one number a channel, and sums of
    many large ones would leave the range of fp16. The result has the dtype of the input.

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
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            mean = x.mean(dim=(2, 3), keepdim=True, dtype=self.down.weight.dtype)
            gate = self.up(F.relu(self.down(mean))).sigmoid()
        return x * gate.to(x.dtype)
