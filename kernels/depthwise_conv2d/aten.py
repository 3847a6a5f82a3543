"""Depthwise convolution on a CPU out of PyTorch's own convolution, steered around its slow paths.

oneDNN, which computes ``F.conv2d`` on a CPU, is fast for a large depthwise kernel in some layouts and passes only.
Measured on one AVX-512 core (AMD Zen 4, torch 2.14, fp32, 8 images), best of several runs, in ms; layouts are those of
the activations, and K x K' is height by width of the kernel:

===============  =====================  ==========  ==========  ==========  ==========
pass             route                  60 x 56^2   60 x 56^2   246 x 14^2  246 x 14^2
                                        3 x 51      51 x 3      3 x 27      27 x 3
===============  =====================  ==========  ==========  ==========  ==========
forward          contiguous             107.6       7.6         16.6        0.7
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

_Size = tuple[int, int]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding: _Size) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        padding: Zeros above and below, left and right; negative numbers cut.

    Returns:
        ``(N, C, H + 2 * padding[0] - kh + 1, W + 2 * padding[1] - kw + 1)`` in the memory format of ``x``.
    """
    memory_format = memory_format_of(x)
    x, padding = _cut(x, padding)
    x = x.contiguous(memory_format=torch.channels_last)
    out = F.conv2d(x, weight, bias, padding=padding, groups=weight.shape[0])
    return out.contiguous(memory_format=memory_format)


def weight_grad(x: Tensor, grad: Tensor, padding: _Size) -> Tensor:
    """Gradient of :func:`conv` with respect to its kernels, accumulated in fp32 or wider.

    Args:
        x: Input ``(N, C, H, W)``.
        grad: Gradient of the output.
        padding: Zeros above and below, left and right; negative numbers cut.

    Returns:
        ``(C, 1, kh, kw)`` in the dtype of ``x``.
    """
    x, padding = _cut(x, padding)
    kernel_size = tuple(x.shape[i] + 2 * padding[i - 2] - grad.shape[i] + 1 for i in (2, 3))
    if grad.numel() == 0:
        return x.new_zeros(x.shape[1], 1, *kernel_size)
    dtype = x.dtype
    if dtype.itemsize < 4:
        x, grad = x.float(), grad.float()
    if max(kernel_size) <= 3:
        taps = _native_weight_grad(x, grad, kernel_size, padding)
    elif padding[1] <= _MAX_CONTIGUOUS_PADDING:
        taps = _slide(x, grad, padding, torch.contiguous_format)
    elif x.shape[2] * x.shape[3] <= _MAX_BATCHED_PIXELS:
        taps = _slide(x, grad, padding, torch.channels_last)
    else:
        pairs = zip(x.split(1), grad.split(1), strict=True)
        taps = sum(_slide(*pair, padding, torch.channels_last) for pair in pairs)
    return taps.to(dtype).contiguous()


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Tell the memory format to answer ``x`` in; a slice of the channels keeps the format of the whole."""
    return torch.channels_last if x.stride(1) == 1 and not x.is_contiguous() else torch.contiguous_format


def _cut(x: Tensor, padding: _Size) -> tuple[Tensor, _Size]:
    """Apply the negative part of the padding, which ``F.conv2d`` does not know."""
    height, width = padding
    if height < 0 or width < 0:
        x = F.pad(x, (min(width, 0),) * 2 + (min(height, 0),) * 2)
    return x, (max(height, 0), max(width, 0))


def _slide(x: Tensor, grad: Tensor, padding: _Size, memory_format: torch.memory_format) -> Tensor:
    """Slide the gradient of every channel of every image over its map, and add what the images give."""
    channels = x.shape[1]
    x, grad = _as_one_image(x, memory_format), _as_one_image(grad, memory_format)
    taps = F.conv2d(x, grad.transpose(0, 1), padding=padding, groups=x.shape[1])
    return taps.reshape(-1, channels, 1, *taps.shape[2:]).sum(dim=0)


def _as_one_image(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Turn ``(N, C, H, W)`` into ``(1, N * C, H, W)`` of the given memory format."""
    n, c, h, w = x.shape
    if memory_format is torch.channels_last:
        return x.permute(2, 3, 0, 1).contiguous().view(1, h, w, n * c).permute(0, 3, 1, 2)
    return x.contiguous().view(1, n * c, h, w)


def _native_weight_grad(x: Tensor, grad: Tensor, kernel_size: _Size, padding: _Size) -> Tensor:
    channels = x.shape[1]
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    kernels = x.new_empty(channels, 1, *kernel_size)
    # The arguments after the padding: dilation, not transposed, output padding, groups, and which gradients are wanted.
    return torch.ops.aten.convolution_backward(
        grad, x, kernels, None, (1, 1), padding, (1, 1), False, (0, 0), channels, (False, True, False)
    )[1]
