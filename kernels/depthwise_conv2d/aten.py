"""Depthwise convolution on a CPU out of PyTorch's own operators, steered around their slow paths.

oneDNN, which computes ``F.conv2d`` on a CPU, is fast for a large depthwise kernel in some layouts, widths and passes
only. Milliseconds on one AVX-512 core (AMD Zen 4, torch 2.14, fp32, 8 images, best of several runs): those of
``F.conv2d`` on contiguous and on channels_last maps, and what this module makes of both.

=============================  ===========  ===========  =============  ===========  ===========  ================
layer                          pass         contiguous   channels_last  here, cont.  here, ch.l.  route
=============================  ===========  ===========  =============  ===========  ===========  ================
64 x 56^2, 7 x 7               weight grad  53.5         23.3           3.9          4.0          slide
64 x 56^2, 13 x 13             forward      6.7          19.4           6.7          7.3          15 columns
64 x 56^2, 13 x 13             data grad    9.6          8.9            7.7          7.9          flipped forward
64 x 56^2, 13 x 13             weight grad  187          72.9           8.4          8.4          slide
64 x 56^2, 31 x 31             forward      642          28.9           13.8         17.0         spectra
64 x 56^2, 31 x 31             data grad    55.8         54.3           14.5         16.9         spectra
64 x 56^2, 31 x 31             weight grad  1169         1363           14.5         17.4         spectra
64 x 56^2, 51 x 5              weight grad  246          98.0           9.1          10.9         slide
64 x 56^2, 5 x 51              forward      171          8.4            10.4         8.5          channels_last
64 x 56^2, 5 x 51              weight grad  296          306            11.3         11.3         slide, transposed
60 x 56^2, 51 x 3              weight grad  5.7          7.9            5.7          8.0          oneDNN's own
256 x 14^2, 31 x 31            forward      154          2.8            3.1          2.8          channels_last
256 x 14^2, 31 x 31            weight grad  123          80.9           3.7          3.6          slide
144 x 56^2, 13 x 13, stride 2  weight grad  141          47.2           6.3          9.1          slide
160 x 28^2, 7 x 7, dilation 2  data grad    38.6         13.7           1.6          1.3          flipped forward
=============================  ===========  ===========  =============  ===========  ===========  ================

So the data gradient is a forward convolution with flipped kernels (at stride 1), and the weight gradient one in which
the output's gradient slides over the input: a few contiguous images at a time, transposed if kernels are wide, or image
by image in channels_last. Large kernels on large maps are products of spectra. Asymmetric padding becomes a few zero
taps. fp16 is computed in fp32, but for forward passes on processors with arithmetic in fp16, and so is bf16 where
oneDNN never returns.
"""

from functools import lru_cache
from itertools import count
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Pair, Sides, memory_format_of, output_size

# With more padding than this on the left, or than the output is wide, oneDNN convolves contiguous maps, and any with
# dilated kernels, through im2col and a matrix product.
_MAX_PADDING = 6
# Width of kernels that are fast on channels_last maps, unlike those of 10 to 13 columns.
_FAST_WIDTH = 15
# oneDNN 3 hangs on bf16 in channels_last with kernels wider than 14 and up to this many channels, where it gets no fp16
# either.
_MAX_ENDLESS_CHANNELS = 16
# Whether oneDNN has kernels for fp16; its gradients take ten to a hundred times as long as those in fp32 all the same.
HAS_FP16 = getattr(torch.ops.mkldnn, '_is_mkldnn_fp16_supported', bool)()
# Multiply-adds on data, as oneDNN does them, that each point of a Fourier transform has to replace, and how much more a
# point costs if a length is no power of two.
_MACS_PER_POINT = {torch.contiguous_format: 130, torch.channels_last: 170}
_ODD_LENGTH = 1.35
# Numbers in the images that a weight gradient takes at once: more leave the caches.
_MAX_CHUNK = 2**19
# Pixels of a channels_last map, and columns of a kernel, from which on its weight gradient is worth a call per image.
_MIN_MAP = 400
_MIN_WIDTH = 6


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        stride: Along height and width.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.
        dilation: Along height and width.

    Returns:
        The output in the dtype and memory format of ``x``.
    """
    dtype, memory_format = x.dtype, memory_format_of(x)
    least = _MACS_PER_POINT[memory_format]
    if x.numel() and fft_pays(tuple(x.shape[2:]), tuple(weight.shape[2:]), stride, padding, dilation, least):
        out = _fft_forward(x, weight, bias, padding)
    else:
        out = _direct_forward(*_in_computable_dtype(x, weight, bias), stride, padding, dilation)
    return _in_format(out.to(dtype), memory_format)


def is_plain(x: Tensor, weight: Tensor, stride: Pair, padding: Sides, dilation: Pair) -> bool:
    """Tell whether :func:`forward` would do nothing but call PyTorch's own convolution on what it was given."""
    left, right, top, bottom = padding
    size, kernel_size, memory_format = tuple(x.shape[2:]), tuple(weight.shape[2:]), memory_format_of(x)
    if left != right or top != bottom or _is_endless(x):
        return False
    if fft_pays(size, kernel_size, stride, padding, dilation, _MACS_PER_POINT[memory_format]):
        return False
    if dilation == (1, 1) and memory_format is torch.channels_last:
        return not has_slow_width(kernel_size, stride)
    return left <= _MAX_PADDING


def input_grad(grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to its input of the given size, in the memory format of ``grad``."""
    if stride == (1, 1):
        # Convolving with flipped kernels is faster than what oneDNN does for the gradient.
        top, left = (dilation[i] * (weight.shape[2 + i] - 1) - padding[2 - 2 * i] for i in (0, 1))
        height, width = output_size(grad.shape[2:], weight.shape[2:], stride, (left, 0, top, 0), dilation)
        padding = left, input_size[1] - width, top, input_size[0] - height
        return forward(grad, weight.flip(2, 3), None, stride, padding, dilation)
    dtype, memory_format = grad.dtype, memory_format_of(grad)
    grad, weight = _in_differentiable_dtype(grad, weight)
    symmetric, rest = _symmetric_part(padding)
    padded_size = input_size[0] + rest[2] + rest[3], input_size[1] + rest[0] + rest[1]
    x = torch.empty(*grad.shape[:2], *padded_size, dtype=grad.dtype, device=grad.device, memory_format=memory_format)
    out, _ = _native_grads(grad, x, weight, stride, symmetric, dilation, (True, False))
    out = F.pad(out, [-side for side in rest]) if any(rest) else out
    return out.to(dtype).contiguous(memory_format=memory_format)


def weight_grad(x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to its kernels ``(C, 1, kh, kw)``, accumulated in fp32 or wider."""
    dtype, channels, least = x.dtype, x.shape[1], _MACS_PER_POINT[memory_format_of(x)]
    if grad.numel() == 0:
        return x.new_zeros(channels, 1, *kernel_size)
    if fft_pays(tuple(x.shape[2:]), kernel_size, stride, padding, dilation, least):
        taps = _fft_weight_grad(x, grad, kernel_size, padding)
    else:
        # A few images at a time, so that what becomes of them stays in the caches.
        chunks = 1 if _has_native_weight_grad(x, kernel_size, dilation) else -(-x.numel() // _MAX_CHUNK)
        first, *others = zip(x.chunk(chunks), grad.chunk(chunks), strict=True)
        taps = _direct_weight_grad(*first, kernel_size, stride, padding, dilation)
        for chunk in others:
            taps += _direct_weight_grad(*chunk, kernel_size, stride, padding, dilation)
    return taps.to(dtype).contiguous()


def _direct_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair
) -> Tensor:
    channels_last = memory_format_of(x) is torch.channels_last
    (height, width), rest = _symmetric_part(padding)
    left, right, top, bottom = rest
    few = 4 * max(left, right) <= weight.shape[3] and 4 * max(top, bottom) <= weight.shape[2]
    if any(rest) and few and min(rest) >= 0 and dilation == (1, 1):
        # A few zero taps on the other side cost less than a padded copy of the map.
        weight = F.pad(weight, (right, left, bottom, top))
        height, width = height + top + bottom, width + left + right
    elif any(rest):
        x = F.pad(x, rest)
    if dilation[1] > 1:
        if width > _MAX_PADDING:
            x, width = F.pad(x, (width, width)), 0
    elif channels_last or width > _MAX_PADDING:
        x = _in_format(x, torch.channels_last)
        if has_slow_width(tuple(weight.shape[2:]), stride):
            extra = (_FAST_WIDTH - weight.shape[3]) // 2
            weight, width = F.pad(weight, (extra, extra)), width + extra
    return F.conv2d(x, weight, bias, stride, (height, width), dilation, groups=weight.shape[0])


def has_slow_width(kernel_size: Pair, stride: Pair) -> bool:
    """Tell whether channels_last maps want a wider kernel; low ones of 10 or 11 columns gain nothing."""
    return stride == (1, 1) and (10 if kernel_size[0] >= 7 else 12) <= kernel_size[1] < _FAST_WIDTH - 1


def _direct_weight_grad(
    x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> Tensor:
    if _has_native_weight_grad(x, kernel_size, dilation):
        x, grad = _in_differentiable_dtype(x, grad)
        symmetric, rest = _symmetric_part(padding)
        x = F.pad(x, rest) if any(rest) else x
        weight = x.new_empty(x.shape[1], 1, *kernel_size)
        return _native_grads(grad, x, weight, stride, symmetric, dilation, (False, True))[1]
    left, _, top, _ = padding
    is_small = x.shape[2] * x.shape[3] < _MIN_MAP or kernel_size[1] < _MIN_WIDTH
    if memory_format_of(x) is torch.channels_last and is_small and stride == (1, 1):
        x, grad = (_in_format(tensor, torch.contiguous_format) for tensor in (x, grad))
        return _direct_weight_grad(x, grad, kernel_size, stride, padding, dilation)
    if memory_format_of(x) is torch.contiguous_format and left > _MAX_PADDING >= top:
        # Tall kernels are faster than wide ones.
        x, grad = (_exchange_sides(tensor) for tensor in (x, grad.contiguous()))
        sides = padding[2:] + padding[:2]
        return _direct_weight_grad(x, grad, kernel_size[::-1], stride[::-1], sides, dilation[::-1]).transpose(2, 3)
    return _slide(_real(x), _real(grad), kernel_size, stride, padding, dilation)


def _has_native_weight_grad(x: Tensor, kernel_size: Pair, dilation: Pair) -> bool:
    """Tell whether oneDNN's own gradient of the kernels is any good, as it is for narrow ones that fit the map."""
    return kernel_size[1] <= 3 and kernel_size[0] <= x.shape[2] and dilation == (1, 1)


def _slide(x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Slide the output's gradient of every channel of every image over its map, and add what the images give.

    That is a forward convolution with very large kernels in which stride and dilation change places: of one image with
    very many channels where contiguous maps are convolved fast, else of image after image in channels_last.
    """
    channels, image_by_image = x.shape[1], memory_format_of(x) is torch.channels_last
    if min(padding) < 0:
        x, padding = F.pad(x, padding), (0, 0, 0, 0)
    # Symmetric padding in place of what is asked for gives some taps too many before or behind.
    left, right, top, bottom = padding
    row, column = (
        -(min(before - after, 0) // d) for before, after, d in zip((top, left), (bottom, right), dilation, strict=True)
    )
    top, left = top + row * dilation[0], left + column * dilation[1]
    if left > min(_MAX_PADDING, kernel_size[1]):
        if stride == (1, 1):
            image_by_image = True
        else:
            x, left = F.pad(x, (left, left)), 0
    if top > stride[0] * (grad.shape[2] - 1):
        x, top = F.pad(x, (0, 0, top, top)), 0
    kernels = _in_format(grad, torch.contiguous_format).unsqueeze(2)
    if image_by_image:
        taps = 0
        for image, kernel in zip(x.split(1), kernels, strict=True):
            image = _in_format(image, torch.channels_last)
            taps = F.conv2d(image, kernel, None, dilation, (top, left), stride, groups=channels).add_(taps)
    else:
        x, kernels = x.contiguous().flatten(0, 1)[None], kernels.flatten(0, 1)
        taps = F.conv2d(x, kernels, None, dilation, (top, left), stride, groups=kernels.shape[0])
        taps = taps.unflatten(1, (-1, channels)).sum(dim=1)
    return taps.view(channels, 1, *taps.shape[2:])[:, :, row : row + kernel_size[0], column : column + kernel_size[1]]


def _native_grads(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor]:
    """PyTorch's own gradients with respect to input and kernels, computed in the memory format of ``x``."""
    memory_format = memory_format_of(x)
    grad, x = (tensor.contiguous(memory_format=memory_format) for tensor in (grad, x))
    # The arguments after the dilation: not transposed, no output padding, groups; the last result is the bias's.
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, (0, 0), weight.shape[0], (*wanted, False)
    )[:2]


def _fft_forward(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sides) -> Tensor:
    kernel_size, size = tuple(weight.shape[2:]), tuple(x.shape[2:])
    memory_format = memory_format_of(x)
    lengths = _fft_lengths(size, kernel_size, padding)
    height, width = output_size(size, kernel_size, (1, 1), padding, (1, 1))
    top, left = kernel_size[0] - 1 - padding[2], kernel_size[1] - 1 - padding[0]
    kernels = torch.fft.rfft2(_real(weight[:, 0]).flip(1, 2), lengths)
    out = torch.empty(
        *x.shape[:2], height, width, dtype=kernels.real.dtype, device=x.device, memory_format=memory_format
    )
    # Image by image, so that the spectra stay in the caches.
    for image, result in zip(x.split(1), out.split(1), strict=True):
        spectrum = torch.fft.rfft2(_real(_in_format(image, torch.contiguous_format)), lengths).mul_(kernels)
        sums = torch.fft.irfft2(spectrum, lengths)[..., top : top + height, left : left + width]
        if memory_format is torch.channels_last:
            sums = _in_format(sums.contiguous(), memory_format)
        result.copy_(sums)
    return out if bias is None else out.add_(bias.view(-1, 1, 1))


def _fft_weight_grad(x: Tensor, grad: Tensor, kernel_size: Pair, padding: Sides) -> Tensor:
    lengths = _fft_lengths(tuple(x.shape[2:]), kernel_size, padding)
    spectrum = 0
    for images in zip(x.split(1), grad.split(1), strict=True):
        image, image_grad = (
            torch.fft.rfft2(_real(_in_format(tensor, torch.contiguous_format)), lengths) for tensor in images
        )
        spectrum = image_grad.conj().mul(image).add_(spectrum)
    taps = torch.fft.irfft2(spectrum[0], lengths).roll((padding[2], padding[0]), (1, 2))
    return taps[:, None, : kernel_size[0], : kernel_size[1]]


@lru_cache(maxsize=1024)
def fft_pays(size: Pair, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair, least: float) -> bool:
    """Tell whether a convolution is cheaper as a product of spectra.

    Args:
        size: Height and width of the map.
        kernel_size: Height and width of the kernels.
        stride: Along height and width.
        padding: Zeros on the left, right, top and bottom.
        dilation: Along height and width.
        least: Multiply-adds on data that each point of a Fourier transform has to replace.
    """
    left, right, top, bottom = padding
    inside = min(padding) >= 0 and max(top, bottom) < kernel_size[0] and max(left, right) < kernel_size[1]
    if stride != (1, 1) or dilation != (1, 1) or not inside or prod(kernel_size) < least:
        return False
    out = output_size(size, kernel_size, stride, padding, dilation)
    macs = prod(
        sum(max(min(out[i], size[i] + before - tap) - max(before - tap, 0), 0) for tap in range(kernel_size[i]))
        for i, before in enumerate((top, left))
    )
    lengths = _fft_lengths(size, kernel_size, padding)
    if any(length & (length - 1) for length in lengths):
        least *= _ODD_LENGTH
    return macs > least * prod(lengths)


def _fft_lengths(size: Pair, kernel_size: Pair, padding: Sides) -> Pair:
    """Least lengths for which nothing wraps around into what is kept, of those that transform fast."""
    left, right, top, bottom = padding
    least = (
        max(s + max(pads), k) for s, k, pads in zip(size, kernel_size, ((top, bottom), (left, right)), strict=True)
    )
    # Multiples of 8 without other prime factors than 2, 3 and 5.
    height, width = (next(n for n in count(-(-length // 8) * 8, 8) if 30**16 % n == 0) for length in least)
    return height, width


def _symmetric_part(padding: Sides) -> tuple[Pair, Sides]:
    """Split padding into (height, width), which is equal on opposite sides, and the rest on each side."""
    left, right, top, bottom = padding
    height, width = max(min(top, bottom), 0), max(min(left, right), 0)
    return (height, width), (left - width, right - width, top - height, bottom - height)


def _is_endless(x: Tensor) -> bool:
    """Tell whether oneDNN takes far too long: for fp16 on most CPUs, or for ever, for 16 bits with few channels."""
    if x.dtype is torch.float16 and not HAS_FP16:
        return True
    return x.dtype.itemsize < 4 and x.shape[1] <= _MAX_ENDLESS_CHANNELS


def _in_computable_dtype(x: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    endless = _is_endless(x)
    return [t.float() if endless and t is not None else t for t in (x, *others)]


def _in_differentiable_dtype(x: Tensor, other: Tensor) -> list[Tensor | None]:
    return [x.float(), other.float()] if x.dtype is torch.float16 else _in_computable_dtype(x, other)


def _in_format(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Change the memory format."""
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    if x.numel() == 0 or not dense or x.is_contiguous(memory_format=memory_format):
        return x.contiguous(memory_format=memory_format)
    images, channels, height, width = x.shape
    if memory_format is torch.contiguous_format:
        return _transpose(x, images, height * width).view(x.shape)
    return _transpose(x, images, channels).view(images, height, width, channels).permute(0, 3, 1, 2)


def _exchange_sides(x: Tensor) -> Tensor:
    """Transpose contiguous maps."""
    images, channels, height, width = x.shape
    return _transpose(x, images * channels, height).view(images, channels, width, height)


def _transpose(x: Tensor, matrices: int, rows: int) -> Tensor:
    """Transpose matrices that lie in memory one after the other.

    To shuffle the channels of pixels that are far apart is the same, and PyTorch does so with vector instructions: two
    to six times as fast as it copies.
    """
    size = x.numel() // matrices
    return torch.channel_shuffle(x.as_strided((matrices, size, 1, 1), (size, 1, size, size)), rows).view(-1)


def _real(x: Tensor) -> Tensor:
    """Give a dtype that can be transformed."""
    return x if x.dtype.itemsize >= 4 else x.float()
