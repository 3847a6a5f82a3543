"""The public depthwise convolution: checks its arguments and crops the kernel to the map."""

from torch import Tensor

from . import reference


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
) -> Tensor:
    """Convolve every channel of a map with its own kernel, stride 1.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        padding: Zeros around the map: one number for all sides, ``(height, width)``, or
            ``(left, right, top, bottom)`` as :func:`torch.nn.functional.pad` takes them.

    Returns:
        ``(N, C, H + top + bottom - kh + 1, W + left + right - kw + 1)`` in the dtype of ``x``.

    Raises:
        ValueError: If a shape or the padding does not fit.
    """
    padding = _four_sides(padding)
    _check(x, weight, bias, padding)
    weight, padding = crop_to_map(weight, padding, x.shape[-2], x.shape[-1])
    return reference.depthwise_conv2d(x, weight, bias, padding)


def crop_to_map(
    weight: Tensor, padding: tuple[int, int, int, int], height: int, width: int
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Drop the kernel taps that meet nothing but padding on a map of the given size; the result is unchanged.

    Returns:
        The central part of the kernels, a view, and the padding that goes with it.
    """
    left, right, top, bottom = padding
    rows, top, bottom = _reach(weight.shape[2], top, bottom, height)
    columns, left, right = _reach(weight.shape[3], left, right, width)
    return weight[:, :, rows, columns], (left, right, top, bottom)


def depthwise_macs(kernel_size: tuple[int, int], padding: tuple[int, int, int, int], height: int, width: int) -> int:
    """Count the multiply-accumulates of one channel on a map of the given size, kernel cropped to the map.

    Args:
        kernel_size: Height and width of the kernel.
        padding: Zeros on the left, right, top and bottom.
        height: Height of the input.
        width: Width of the input.

    Returns:
        Taps that can touch data times output pixels; taps that meet padding at some pixels count there too.
    """
    left, right, top, bottom = padding
    rows, top, bottom = _reach(kernel_size[0], top, bottom, height)
    columns, left, right = _reach(kernel_size[1], left, right, width)
    kh, kw = rows.stop - rows.start, columns.stop - columns.start
    return kh * kw * (height + top + bottom - kh + 1) * (width + left + right - kw + 1)


def _reach(taps: int, before: int, after: int, size: int) -> tuple[slice, int, int]:
    """Taps of one axis that can touch data, and the padding left when the others are gone.

    Output ``o`` reads input ``o + tap - before`` with ``o`` in ``[0, size + before + after - taps]``.
    """
    first = min(max(taps - after - size, 0), taps - 1)
    last = max(min(before + size - 1, taps - 1), first)
    return slice(first, last + 1), before - first, after - (taps - 1 - last)


def _four_sides(padding: int | tuple[int, ...]) -> tuple[int, int, int, int]:
    sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if len(sides) == 2:
        height, width = sides
        sides = (width, width, height, height)
    if len(sides) != 4 or min(sides) < 0:
        raise ValueError(
            f'padding must be one number, (height, width) or (left, right, top, bottom), none negative; got {padding}'
        )
    return sides


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int, int]) -> None:
    if x.dim() != 4:
        raise ValueError(f'x must be (N, C, H, W); got shape {tuple(x.shape)}')
    if weight.dim() != 4 or weight.shape[:2] != (x.shape[1], 1):
        raise ValueError(f'weight must be (C, 1, kh, kw) with C = {x.shape[1]} as in x; got {tuple(weight.shape)}')
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f'bias must have shape ({weight.shape[0]},); got {tuple(bias.shape)}')
    left, right, top, bottom = padding
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    if height < weight.shape[2] or width < weight.shape[3]:
        raise ValueError(
            f'padding {padding} makes the map {height} x {width}, smaller than the kernel '
            f'{weight.shape[2]} x {weight.shape[3]}; enlarge the padding'
        )
