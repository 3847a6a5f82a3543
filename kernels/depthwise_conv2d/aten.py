"""Depthwise convolution on a CPU out of PyTorch's own convolution, steered around its slow paths.

oneDNN, which computes ``F.conv2d`` on a CPU, is fast for a large depthwise kernel in some layouts and passes only.
Measured on one AVX-512 core (AMD Zen 4, torch 2.14, fp32, 8 images), best of several runs, in ms; layouts are those of
the activations, and K x K' is height by width of the kernel:

===============  =====================  ==========  ==========  ==========  ==========
pass             route                  60 x 56^2   60 x 56^2   246 x 14^2  246 x 14^2
                                        3 x 51      51 x 3      3 x 27      27 x 3
===============  =====================  ==========  ==========  ==========  ==========
forward          contiguous             107.6       14.2        16.6        0.7
forward          channels_last          6.7         7.5         0.8         0.6
data gradient    native, better layout  13.2        7.4         1.3         0.7
data gradient    forward, flipped       7.5         7.3         0.6         0.6
weight gradient  native, better layout  189.3       7.8         12.0        8.7
weight gradient  sliding, as here       10.0        7.6         1.6         0.9
===============  =====================  ==========  ==========  ==========  ==========

So every pass is a forward convolution: the data gradient one with flipped kernels, the weight gradient one in which the
output's gradient slides over the input. Only the weight gradient of kernels up to 3 x 3 is left to the native route.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Above this padding on the left, oneDNN convolves contiguous maps through im2col and a matrix product.
_MAX_CONTIGUOUS_PADDING = 6
# Maps up to this many pixels are worth one call for the whole batch; larger ones are faster image by image.
_MAX_BATCHED_PIXELS = 512

_Padding = tuple[int, int, int, int]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding: _Padding) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.

    Returns:
        ``(N, C, H + top + bottom - kh + 1, W + left + right - kw + 1)`` in the memory format of ``x``.
    """
    memory_format = memory_format_of(x)
    x, symmetric, extra = _symmetric(x, weight.shape[2:], padding)
    x = x.contiguous(memory_format=torch.channels_last)
    out = F.conv2d(x, F.pad(weight, extra), bias, padding=symmetric, groups=weight.shape[0])
    return out.contiguous(memory_format=memory_format)


def weight_grad(x: Tensor, grad: Tensor, padding: _Padding) -> Tensor:
    """Gradient of :func:`conv` with respect to its kernels, accumulated in fp32 or wider.

    Args:
        x: Input ``(N, C, H, W)``.
        grad: Gradient of the output.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.

    Returns:
        ``(C, 1, kh, kw)`` in the dtype of ``x``.
    """
    left, right, top, bottom = padding
    size = x.shape[2] + top + bottom - grad.shape[2] + 1, x.shape[3] + left + right - grad.shape[3] + 1
    if grad.numel() == 0:
        return x.new_zeros(x.shape[1], 1, *size)
    dtype = x.dtype
    if dtype.itemsize < 4:
        x, grad = x.float(), grad.float()
    x, symmetric, extra = _symmetric(x, size, padding)
    full_size = size[0] + extra[2] + extra[3], size[1] + extra[0] + extra[1]
    if max(full_size) <= 3:
        taps = _native_weight_grad(x, grad, full_size, symmetric)
    elif symmetric[1] <= _MAX_CONTIGUOUS_PADDING:
        taps = _slide(x.contiguous(), grad.contiguous(), symmetric)
    elif x.shape[2] * x.shape[3] <= _MAX_BATCHED_PIXELS:
        taps = _slide(_pixels_first(x), _pixels_first(grad), symmetric)
    else:
        x = x.contiguous(memory_format=torch.channels_last)
        grad = grad.contiguous(memory_format=torch.channels_last)
        taps = sum(_slide(*image, symmetric) for image in zip(x.split(1), grad.split(1), strict=True))
    return taps[:, :, extra[2] : extra[2] + size[0], extra[0] : extra[0] + size[1]].to(dtype).contiguous()


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Tell the memory format that an operator should answer ``x`` in."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return torch.channels_last
    return torch.contiguous_format


def _symmetric(x: Tensor, kernel_size: tuple[int, int], padding: _Padding) -> tuple[Tensor, tuple[int, int], _Padding]:
    """Make the padding equal on opposite sides, as ``F.conv2d`` wants it, by widening the kernel or the map.

    A few zero taps cost less than a padded copy of the map: one shift-wise layer of 122 x 28^2, strip 3 x 51, forward,
    takes 2.9 ms with symmetric padding and 5.9 ms with a copy, where two more taps are 4 % more arithmetic.

    Returns:
        The map, its padding ``(height, width)``, and the zero taps to add to the kernel (left, right, top, bottom).
    """
    left, right, top, bottom = padding
    extra = max(right - left, 0), max(left - right, 0), max(bottom - top, 0), max(top - bottom, 0)
    few = 4 * (extra[0] + extra[1]) <= kernel_size[1] and 4 * (extra[2] + extra[3]) <= kernel_size[0]
    if min(padding) < 0 or not few:
        return F.pad(x, padding), (0, 0), (0, 0, 0, 0)
    return x, (max(top, bottom), max(left, right)), extra


def _slide(x: Tensor, grad: Tensor, padding: tuple[int, int]) -> Tensor:
    """Correlate maps with the gradients that belong to them, each channel of each image on its own, and add the images.

    Both tensors are read as one image with ``N * C`` channels.
    """
    n, c, *size = grad.shape
    taps = F.conv2d(x.reshape(1, n * c, *x.shape[2:]), grad.reshape(n * c, 1, *size), padding=padding, groups=n * c)
    return taps.reshape(n, c, 1, *taps.shape[2:]).sum(dim=0)


def _pixels_first(x: Tensor) -> Tensor:
    """Lay ``(N, C, H, W)`` out in memory so that ``(1, N * C, H, W)`` is a channels_last view of it."""
    return x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)


def _native_weight_grad(x: Tensor, grad: Tensor, kernel_size: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    channels = x.shape[1]
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    kernels = x.new_empty(channels, 1, *kernel_size)
    # The arguments after the padding: dilation, not transposed, output padding, groups, and which gradients are wanted.
    return torch.ops.aten.convolution_backward(
        grad, x, kernels, None, (1, 1), padding, (1, 1), False, (0, 0), channels, (False, True, False)
    )[1]
