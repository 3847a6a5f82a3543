"""The public depthwise convolution: checks its arguments, crops the kernel to the map and picks a backend."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from . import aten

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
# PyTorch before 2.7 cannot tell an export from a compilation.
_is_exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] | tuple[int, int, int, int] = 0,
) -> Tensor:
    """Convolve every channel of a map with its own kernel, stride 1.

    Differentiable twice. Under autocast the inputs are cast as for :func:`torch.nn.functional.conv2d`. Taps that can
    meet nothing but padding on this map are dropped first, so a kernel larger than the map costs no more than the map
    allows.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        padding: Zeros around the map: one number for all sides, ``(height, width)``, or
            ``(left, right, top, bottom)`` as :func:`torch.nn.functional.pad` takes them.

    Returns:
        ``(N, C, H + top + bottom - kh + 1, W + left + right - kw + 1)``.

    Raises:
        ValueError: If a shape, a dtype or the padding does not fit.
    """
    padding = _four_sides(padding)
    x, weight, bias = _autocast(x, weight, bias)
    _check(x, weight, bias, padding)
    weight, padding = crop_to_map(weight, padding, x.shape[-2], x.shape[-1])
    x, weight, symmetric = _symmetric(x, weight, padding)
    if _wants_aten(x):
        return _conv(x, weight, bias, symmetric)
    return F.conv2d(x, weight, bias, padding=symmetric, groups=weight.shape[0])


def crop_to_map(
    weight: Tensor, padding: tuple[int, int, int, int], height: int, width: int
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Drop the kernel taps that meet nothing but padding on a map of the given size; the result is unchanged.

    Returns:
        The remaining part of the kernels, a view, and the padding that goes with it.
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


def _symmetric(x: Tensor, weight: Tensor, padding: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Make the padding equal on opposite sides, as ``F.conv2d`` wants it, by widening the kernel or the map.

    A few zero taps cost less than a padded copy of the map. A strip of 3 x 51 on 8 x 122 x 28^2 took 2.9 ms with
    symmetric padding and 5.9 ms with a copy (one AVX-512 core), where two taps more are 4 % more arithmetic.

    Returns:
        Map, kernels, and the padding ``(height, width)`` that is left.
    """
    left, right, top, bottom = padding
    extra = max(right - left, 0), max(left - right, 0), max(bottom - top, 0), max(top - bottom, 0)
    if 4 * max(extra[:2]) > weight.shape[3] or 4 * max(extra[2:]) > weight.shape[2]:
        return F.pad(x, padding), weight, (0, 0)
    if any(extra):
        weight = F.pad(weight, extra)
    return x, weight, (max(top, bottom), max(left, right))


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


def _autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int, int, int]) -> None:
    if x.dim() != 4:
        raise ValueError(f'x must be (N, C, H, W); got shape {tuple(x.shape)}')
    if weight.dim() != 4 or weight.shape[:2] != (x.shape[1], 1):
        raise ValueError(f'weight must be (C, 1, kh, kw) with C = {x.shape[1]} as in x; got {tuple(weight.shape)}')
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f'bias must have shape ({weight.shape[0]},); got {tuple(bias.shape)}')
    for name, tensor in (('weight', weight), ('bias', bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise ValueError(f'{name} must have the dtype of x, {x.dtype}; got {tensor.dtype}')
    left, right, top, bottom = padding
    height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
    if height < weight.shape[2] or width < weight.shape[3]:
        raise ValueError(
            f'padding {padding} makes the map {height} x {width}, smaller than the kernel '
            f'{weight.shape[2]} x {weight.shape[3]}; enlarge the padding'
        )


def _wants_aten(x: Tensor) -> bool:
    """Tell whether to steer around oneDNN's slow paths; a traced or exported model keeps a plain convolution."""
    exporting = _is_exporting() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    return _HAS_ONEDNN and x.device.type == 'cpu' and x.dtype != torch.float64 and not exporting


# The operators are opaque to the compiler: what they call would be taken apart again and land on the slow paths.
# Each one's gradients are made of the two of them, which makes any order of differentiation work.


@torch.library.custom_op(
    'sw_mm::depthwise_conv2d',
    mutates_args=(),
    device_types='cpu',
    schema='(Tensor x, Tensor weight, Tensor? bias, int[] padding) -> Tensor',
)
def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    return aten.conv(x, weight, bias, tuple(padding))


@torch.library.custom_op(
    'sw_mm::depthwise_conv2d_weight_grad',
    mutates_args=(),
    device_types='cpu',
    schema='(Tensor x, Tensor grad, int[] padding) -> Tensor',
)
def _weight_grad(x: Tensor, grad: Tensor, padding: Sequence[int]) -> Tensor:
    return aten.weight_grad(x, grad, tuple(padding))


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sequence[int]) -> Tensor:
    height, width = (x.shape[i] + 2 * padding[i - 2] - weight.shape[i] + 1 for i in (2, 3))
    return torch.empty(
        (x.shape[0], x.shape[1], height, width),
        dtype=x.dtype,
        device=x.device,
        memory_format=aten.memory_format_of(x),
    )


@_weight_grad.register_fake
def _(x: Tensor, grad: Tensor, padding: Sequence[int]) -> Tensor:
    height, width = (x.shape[i] + 2 * padding[i - 2] - grad.shape[i] + 1 for i in (2, 3))
    return x.new_empty(x.shape[1], 1, height, width)


def _input_grad(grad: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    return _conv(grad, weight.flip(2, 3), None, [weight.shape[i] - 1 - padding[i - 2] for i in (2, 3)])


def _save_inputs(ctx, inputs: tuple, output: Tensor) -> None:
    *_, ctx.padding = inputs
    ctx.save_for_backward(inputs[0], inputs[1])


def _conv_backward(ctx, grad: Tensor) -> tuple:
    x, weight = ctx.saved_tensors
    return (
        _input_grad(grad, weight, ctx.padding) if ctx.needs_input_grad[0] else None,
        _weight_grad(x, grad, ctx.padding) if ctx.needs_input_grad[1] else None,
        grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None,
        None,
    )


def _weight_grad_backward(ctx, grad: Tensor) -> tuple:
    x, output_grad = ctx.saved_tensors
    return (
        _input_grad(output_grad, grad, ctx.padding) if ctx.needs_input_grad[0] else None,
        _conv(x, grad, None, ctx.padding) if ctx.needs_input_grad[1] else None,
        None,
    )


_conv.register_autograd(_conv_backward, setup_context=_save_inputs)
_weight_grad.register_autograd(_weight_grad_backward, setup_context=_save_inputs)
