"""Axis orders: linear layers want channels last, convolutions want channels first."""

from torch import Tensor, nn


class ToChannelsLast(nn.Module):
    """View (N, C, H, W) as (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ToChannelsFirst(nn.Module):
    """View (N, H, W, C) as (N, C, H, W); a contiguous input becomes a ``torch.channels_last`` map without a copy."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)
