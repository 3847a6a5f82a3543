"""Sizes of a convolution: what it covers, what of it touches data, and what that costs."""

import torch
from torch import Tensor

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def output_size(size: Pair, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Pair:
    """Height and width of a convolution's output; padding is left, right, top, bottom."""
    left, right, top, bottom = padding
    padded = size[0] + top + bottom, size[1] + left + right
    height, width = ((padded[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    return height, width


def crop_to_map(weight: Tensor, size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> tuple[Tensor, Sides]:
    """Drop kernel taps that meet nothing but padding on a map of the given size; the result is unchanged.

    Returns:
        The remaining part of the kernels, a view, and the padding that goes with it.
    """
    part, padding = part_on_map(weight.shape[2:], size, stride, padding, dilation)
    return take_part(weight, part), padding


def take_part(weight: Tensor, part: tuple[slice, slice] | None) -> Tensor:
    """Give the rows and columns of kernels that :func:`part_on_map` tells."""
    # Not even an empty crop if there is nothing to drop: exported programs stay free of it.
    return weight if part is None else weight[(..., *part)]


def part_on_map(
    kernel_size: Pair, size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> tuple[tuple[slice, slice] | None, Sides]:
    """Tell which rows and columns of a kernel can meet data on a map of the given size.

    Nothing is dropped if a traced or exported program leaves the size open.

    Returns:
        Rows and columns, or None for all of them, and the padding that goes with them.
    """
    if is_open(size):
        return None, padding
    rows, columns, remaining = _reach(kernel_size, size, stride, padding, dilation)
    return None if remaining == padding else (rows, columns), remaining


def is_open(size: Pair) -> bool:
    """Tell whether a traced or exported program leaves a size open."""
    return not all(isinstance(side, int) for side in size)


def depthwise_macs(
    kernel_size: Pair, padding: Sides, height: int, width: int, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> int:
    """Count the multiply-accumulates of one channel on a map of the given size, kernel cropped to the map.

    Args:
        kernel_size: Height and width of the kernel.
        padding: Zeros on the left, right, top and bottom.
        height: Height of the input.
        width: Width of the input.
        stride: Along height and width.
        dilation: Along height and width.

    Returns:
        Taps that can touch data times output pixels; taps that meet padding at some pixels count there too.
    """
    rows, columns, _ = _reach(kernel_size, (height, width), stride, padding, dilation)
    out = output_size((height, width), kernel_size, stride, padding, dilation)
    return (rows.stop - rows.start) * (columns.stop - columns.start) * out[0] * out[1]


def memory_format_of(x: Tensor) -> torch.memory_format:
    """Tell the memory format to answer ``x`` in; a slice of the channels keeps the format of the whole."""
    return torch.channels_last if x.stride(1) == 1 and not x.is_contiguous() else torch.contiguous_format


def _reach(kernel_size: Pair, size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> tuple[slice, slice, Sides]:
    """Rows and columns of the kernel that can touch data, and the padding left when the others are gone."""
    left, right, top, bottom = padding
    height, width = output_size(size, kernel_size, stride, padding, dilation)
    rows, top, bottom = _reach_1d(kernel_size[0], size[0], height, stride[0], top, bottom, dilation[0])
    columns, left, right = _reach_1d(kernel_size[1], size[1], width, stride[1], left, right, dilation[1])
    return rows, columns, (left, right, top, bottom)


def _reach_1d(
    taps: int, size: int, out: int, stride: int, before: int, after: int, dilation: int
) -> tuple[slice, int, int]:
    """Output ``o`` reads input ``o * stride + tap * dilation - before``; dropping a tap takes padding with it."""
    first = -((((out - 1) * stride) - before) // dilation)
    first = min(max(first, 0), before // dilation, taps - 1)
    surplus = taps - 1 - (before + size - 1) // dilation
    surplus = min(max(surplus, 0), after // dilation, taps - 1 - first)
    return slice(first, taps - surplus), before - first * dilation, after - surplus * dilation
