"""Convolutions that know how to merge with the batch norm behind them."""

import torch
from torch import Tensor, nn

from sw_mm.kernels import depthwise_conv2d
from sw_mm.kernels.arguments import positive_integer

from .reparam import fuse_norm


@torch.no_grad()
def set_weights(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer a merged weight and bias, rounded to its own dtype; parameters are made as needed.

    Args:
        layer: What gets them. New parameters are trainable if its weight is.
        weight: Any shape that the layer can work with.
        bias: ``(C_out,)``, or None for a layer without.
    """
    old = layer.weight
    layer.weight = nn.Parameter(weight.to(old), requires_grad=old.requires_grad)
    layer.bias = None if bias is None else nn.Parameter(bias.to(old), requires_grad=old.requires_grad)


class DepthwiseConv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` with as many groups as channels, computed by ``sw_mm.kernels.depthwise_conv2d``.

    Zeros around the map keep its size at stride 1; the attribute ``padding`` says how many. The weight is
    ``(C, 1, kh, kw)``.

    Args:
        channels: C.
        kernel_size: Height and width of the kernel, odd; one number stands for both.
        stride: Along both axes.
        dilation: Distance of neighbouring taps along both axes.
        bias: Whether there is a number per channel to add.

    Raises:
        ValueError: If an argument is no positive integer, or a side of the kernel is even.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        channels = positive_integer('channels', channels)
        stride, dilation = positive_integer('stride', stride), positive_integer('dilation', dilation)
        given = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        sides = tuple(positive_integer('kernel_size', side) for side in given)
        if len(sides) != 2 or any(side % 2 == 0 for side in sides):
            raise ValueError(f'kernel_size must be one odd number, or two, (height, width); got {kernel_size!r}')
        padding = tuple(dilation * (side // 2) for side in sides)
        super().__init__(channels, channels, sides, stride, padding, dilation, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)

    def published_macs(self, height: int, width: int) -> int:
        """Count multiply-accumulates per image as the papers do: every tap at every position, padding or not.

        What is executed can be less, as taps that meet nothing but padding are skipped.
        """
        out = [(size - 1) // stride + 1 for size, stride in zip((height, width), self.stride, strict=True)]
        return self.weight.numel() * out[0] * out[1]

    def absorb_norm(self, norm: nn.Module) -> None:
        """Fold the batch norm that follows the layer into it, in place.

        Raises:
            ValueError: If the norm keeps no running statistics.
        """
        set_weights(self, *fuse_norm(self.weight, self.bias, norm))


class ConvNorm(nn.Module):
    """A convolution, a norm and an activation, under the names ``conv`` and ``bn``.

    Args:
        conv: The convolution.
        norm: The batch norm behind it, or None.
        act: The activation at the end, or None; it has no parameters.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = norm
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.act is None else self.act(x)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias, float64, of the convolution that equals both layers in evaluation mode.

        Raises:
            ValueError: If the norm keeps no running statistics.
        """
        weight, bias = self.conv.weight, self.conv.bias
        if self.bn is not None:
            return fuse_norm(weight, bias, self.bn)
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return weight.detach().double(), bias.detach().double()

    def switch_to_deploy(self) -> None:
        """Fold the norm into the convolution, in place; a second call changes nothing.

        Raises:
            ValueError: If the norm keeps no running statistics.
        """
        if self.bn is not None:
            set_weights(self.conv, *self.folded())
            self.bn = None
