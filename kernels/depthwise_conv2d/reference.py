"""Depthwise convolution in its plainest form: zero padding, then PyTorch's own grouped convolution."""

from torch import Tensor
from torch.nn import functional as F

from .geometry import Pair, Sides


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Sides = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        stride: Along height and width.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.
        dilation: Along height and width.

    Returns:
        The output ``(N, C, H', W')`` as of :func:`torch.nn.functional.conv2d`.
    """
    left, right, top, bottom = padding
    if left == right >= 0 and top == bottom >= 0:
        return F.conv2d(x, weight, bias, stride, (top, left), dilation, groups=weight.shape[0])
    return F.conv2d(F.pad(x, padding), weight, bias, stride, 0, dilation, groups=weight.shape[0])
