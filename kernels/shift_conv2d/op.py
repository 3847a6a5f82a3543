"""The public shift-wise convolution: depthwise convolutions of one map with two strips and a centred kernel."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from math import prod
from types import ModuleType

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _dispatch
from ..depthwise_conv2d import op as depthwise
from ..depthwise_conv2d import reference
from ..depthwise_conv2d.geometry import Sides, crop_to_map, memory_format_of
from .strips import shift_strips
from .tables import ShiftTables


def shift_conv2d(
    x: Tensor, weight: Tensor, tables: ShiftTables, connections: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Shift-wise convolution: horizontal, vertical and centred map, before any normalisation.

    Differentiable twice. Under autocast the inputs are cast as for :func:`torch.nn.functional.conv2d`; fp16 and bf16
    are accumulated in fp32.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Filters ``(C * num_shifts, 1, k, k)``, summed over the paths.
        tables: Connection tables.
        connections: ``tables.connection_matrix()`` as a tensor, if the caller keeps one; else it is made anew.

    Returns:
        Three maps ``(N, C, H, W)`` in the memory format of ``x``.

    Raises:
        ValueError: If a shape or dtype does not fit the tables.
        RuntimeError: If a backend was asked for that cannot compute this.
    """
    _check_map(x, tables)
    x, *kernels = _dispatch.autocast(x, *shift_strips(weight, tables, connections))
    kernels, paddings = _crop(x, kernels, None, tables)
    backend = depthwise.choose_backend(x, *kernels)
    if backend == 'reference':
        maps = _reference_maps(x, kernels, paddings)
    else:
        maps = _maps(x, kernels, _flat(paddings), backend)
    horizontal, vertical, centred = maps
    return horizontal, vertical, centred


def folded_shift_conv2d(x: Tensor, horizontal: Tensor, vertical: Tensor, bias: Tensor, tables: ShiftTables) -> Tensor:
    """Shift-wise convolution for inference, with norms, centred branch and shortcut folded into the strips.

    Args:
        x: Input ``(N, C, H, W)``.
        horizontal: Strip ``(C, 1, k, L)`` with ``L = tables.strip_length``.
        vertical: Strip ``(C, 1, L, k)``.
        bias: ``(C,)``.
        tables: Connection tables; only their geometry is used.

    Returns:
        The sum of the branches, ``(N, C, H, W)`` in the memory format of ``x``.

    Raises:
        ValueError: If a shape or dtype does not fit the tables.
        RuntimeError: If a backend was asked for that cannot compute this.
    """
    _check_map(x, tables)
    channels, k, length = tables.channels, tables.small_kernel, tables.strip_length
    for name, strip, shape in (
        ('horizontal', horizontal, (channels, 1, k, length)),
        ('vertical', vertical, (channels, 1, length, k)),
    ):
        if strip.shape != shape:
            raise ValueError(f'{name} must have shape {shape} for these tables; got {tuple(strip.shape)}')
    x, *kernels, bias = _dispatch.autocast(x, horizontal, vertical, bias)
    kernels, paddings = _crop(x, kernels, bias, tables)
    backend = depthwise.choose_backend(x, *kernels)
    if backend == 'reference':
        first, second = _reference_maps(x, kernels, paddings, bias)
        return first + second
    return _folded(x, kernels, bias, _flat(paddings), backend)


def _check_map(x: Tensor, tables: ShiftTables) -> None:
    if x.dim() != 4 or x.shape[1] != tables.channels:
        raise ValueError(f'x must be (N, C, H, W) with C = {tables.channels} as in the tables; got {tuple(x.shape)}')


def _crop(
    x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, tables: ShiftTables
) -> tuple[list[Tensor], list[Sides]]:
    """Check the kernels and drop the taps that touch no data; give the rest and the padding of each."""
    along, across = tables.strip_padding, (tables.small_kernel // 2,) * 2
    cropped, paddings = [], []
    for kernel, padding in zip(kernels, (along + across, across + along, across + across), strict=False):
        depthwise.check(x, kernel, bias, padding, (1, 1))
        kernel, padding = crop_to_map(kernel, x.shape[2:], (1, 1), padding, (1, 1))
        cropped.append(kernel)
        paddings.append(padding)
    return cropped, paddings


def _reference_maps(
    x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[Sides], bias: Tensor | None = None
) -> list[Tensor]:
    biases = [bias, None, None]
    return [
        reference.depthwise_conv2d(x, kernel, bias, padding=padding)
        for kernel, bias, padding in zip(kernels, biases, paddings, strict=False)
    ]


@cache
def _implementation(backend: str) -> ModuleType:
    return import_module(f'.{backend}', __package__)


def _flat(paddings: Sequence[Sides]) -> list[int]:
    """Operators take flat lists of integers only."""
    return [side for padding in paddings for side in padding]


def _sides(paddings: Sequence[int]) -> list[Sides]:
    return [tuple(paddings[i : i + 4]) for i in range(0, len(paddings), 4)]


# As in the depthwise convolution, the operators are linear in two arguments (lists count as one), and their gradients
# are made of one another. The sum of the maps serves inference; its gradients are those of maps with equal gradients.
_GEOMETRY = 'SymInt[] paddings, str backend'


@torch.library.custom_op(
    'sw_mm::shift_maps', mutates_args=(), schema=f'(Tensor x, Tensor[] kernels, {_GEOMETRY}) -> Tensor[]'
)
def _maps(x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[int], backend: str) -> list[Tensor]:
    return list(_implementation(backend).maps(x, kernels, _sides(paddings)))


@torch.library.custom_op(
    'sw_mm::shift_folded', mutates_args=(), schema=f'(Tensor x, Tensor[] kernels, Tensor? bias, {_GEOMETRY}) -> Tensor'
)
def _folded(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, paddings: Sequence[int], backend: str) -> Tensor:
    return _implementation(backend).folded(x, kernels, bias, _sides(paddings))


@torch.library.custom_op(
    'sw_mm::shift_input_grad', mutates_args=(), schema=f'(Tensor[] grads, Tensor[] kernels, {_GEOMETRY}) -> Tensor'
)
def _input_grad(grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[int], backend: str) -> Tensor:
    return _implementation(backend).input_grad(grads, kernels, _sides(paddings))


@torch.library.custom_op(
    'sw_mm::shift_weight_grads',
    mutates_args=(),
    schema=f'(Tensor x, Tensor[] grads, Tensor[] kernels, {_GEOMETRY}) -> Tensor[]',
)
def _weight_grads(
    x: Tensor, grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[int], backend: str
) -> list[Tensor]:
    """Of the kernels, only the shapes matter."""
    return list(_implementation(backend).weight_grads(x, grads, kernels, _sides(paddings)))


@_maps.register_fake
def _(x, kernels, paddings, backend):
    return [_empty_like(x) for _ in kernels]


@_folded.register_fake
def _(x, kernels, bias, paddings, backend):
    return _empty_like(x)


@_input_grad.register_fake
def _(grads, kernels, paddings, backend):
    return _empty_like(grads[0])


@_weight_grads.register_fake
def _(x, grads, kernels, paddings, backend):
    return [kernel.new_empty(kernel.shape) for kernel in kernels]


def _empty_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _save_map_and_kernels(ctx, inputs: tuple, output: object) -> None:
    x, kernels, *_, paddings, backend = inputs
    ctx.geometry = paddings, backend
    ctx.save_for_backward(x, *kernels)


def _maps_backward(ctx, out_grads: Sequence[Tensor]) -> tuple:
    x, *kernels = ctx.saved_tensors
    return (
        _input_grad(out_grads, kernels, *ctx.geometry) if ctx.needs_input_grad[0] else None,
        _weight_grads(x, out_grads, kernels, *ctx.geometry) if any(ctx.needs_input_grad[1]) else [None] * len(kernels),
        None,
        None,
    )


def _folded_backward(ctx, out_grad: Tensor) -> tuple:
    x_grad, kernel_grads, *rest = _maps_backward(ctx, [out_grad] * (len(ctx.saved_tensors) - 1))
    return x_grad, kernel_grads, out_grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None, *rest


def _save_grads_and_kernels(ctx, inputs: tuple, output: object) -> None:
    *x, grads, kernels, paddings, backend = inputs
    ctx.geometry = paddings, backend
    ctx.save_for_backward(*x, *grads, *kernels)


def _input_grad_backward(ctx, out_grad: Tensor) -> tuple:
    count = len(ctx.saved_tensors) // 2
    grads, kernels = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
    grad_grads = _maps(out_grad, kernels, *ctx.geometry)
    return grad_grads, _weight_grads(out_grad, grads, kernels, *ctx.geometry), None, None


def _weight_grads_backward(ctx, out_grads: Sequence[Tensor]) -> tuple:
    x, *grads = ctx.saved_tensors[: 1 + len(out_grads)]
    return (
        _input_grad(grads, out_grads, *ctx.geometry),
        _maps(x, out_grads, *ctx.geometry),
        [None] * len(out_grads),
        None,
        None,
    )


_maps.register_autograd(_maps_backward, setup_context=_save_map_and_kernels)
_folded.register_autograd(_folded_backward, setup_context=_save_map_and_kernels)
_input_grad.register_autograd(_input_grad_backward, setup_context=_save_grads_and_kernels)
_weight_grads.register_autograd(_weight_grads_backward, setup_context=_save_grads_and_kernels)
_dispatch.register_autocast('shift_maps', 'shift_folded')
_dispatch.register_autocast('shift_input_grad', 'shift_weight_grads', cast=False)


@register_flop_formula([torch.ops.sw_mm.shift_maps, torch.ops.sw_mm.shift_folded])
def _(x: Sequence[int], kernels: Sequence[Sequence[int]], *_, **__) -> int:
    return _flops(x, kernels)


@register_flop_formula(torch.ops.sw_mm.shift_input_grad)
def _(grads: Sequence[Sequence[int]], kernels: Sequence[Sequence[int]], *_, **__) -> int:
    return _flops(grads[0], kernels)


@register_flop_formula(torch.ops.sw_mm.shift_weight_grads)
def _(x: Sequence[int], grads: Sequence[Sequence[int]], kernels: Sequence[Sequence[int]], *_, **__) -> int:
    return _flops(x, kernels)


def _flops(x: Sequence[int], kernels: Sequence[Sequence[int]]) -> int:
    return 2 * prod(x) * sum(prod(kernel[2:]) for kernel in kernels)
