"""Depthwise convolution in its plainest form: zero padding, then PyTorch's own grouped convolution."""

from torch import Tensor
from torch.nn import functional as F


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int, int]) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.

    Returns:
        ``(N, C, H + top + bottom - kh + 1, W + left + right - kw + 1)``.
    """
    return F.conv2d(F.pad(x, padding), weight, bias, groups=weight.shape[0])
