"""The public depthwise convolution: checks its arguments, crops the kernel to the map and picks a backend."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from math import prod
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from .. import _dispatch
from .._plans import Plans
from ..arguments import is_integer
from . import aten, native, reference
from .geometry import Pair, Sides, is_open, memory_format_of, output_size, part_on_map, take_part

# Asked for at every call: to find them in PyTorch's modules takes as long again if caches are cold.
_is_compiling, _is_grad_enabled = torch.compiler.is_compiling, torch.is_grad_enabled
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # of is_grads_batched
# What the CPU backends are fast for; all else is left to PyTorch's own convolutions.
_STEERED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# On a GPU, PyTorch's own convolutions are specialised for kernels up to this side.
_LARGEST_NATIVE_ON_GPU = 5


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | Sides = 0,
    dilation: int | Pair = 1,
) -> Tensor:
    """Convolve every channel of a map with its own kernel.

    Differentiable twice. Under autocast the inputs are cast as for :func:`torch.nn.functional.conv2d`; fp16 and bf16
    are accumulated in fp32. Taps that can meet nothing but padding on this map are dropped first, so a kernel larger
    than the map costs no more than the map allows.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        stride: One number or ``(height, width)``.
        padding: Zeros around the map: one number for all sides, ``(height, width)``, or
            ``(left, right, top, bottom)`` as :func:`torch.nn.functional.pad` takes them.
        dilation: Distance of neighbouring taps, one number or ``(height, width)``.

    Returns:
        ``(N, C, H', W')`` with ``H' = (H + top + bottom - dilation * (kh - 1) - 1) // stride + 1`` and ``W'`` likewise.
        A channels_last input gives a channels_last output.

    Raises:
        TypeError: If ``x`` or ``weight`` is no tensor.
        ValueError: If a shape, a dtype, stride, padding or dilation does not fit.
        RuntimeError: If a backend was asked for that cannot compute this.
    """
    if not (isinstance(x, Tensor) and isinstance(weight, Tensor)):
        name, value = ('weight', weight) if isinstance(x, Tensor) else ('x', x)
        raise TypeError(f'{name} must be a tensor; got {type(value).__name__}')
    if _is_compiling():
        return _dispatched(x, weight, bias, stride, padding, dilation)
    recorded = _is_recorded(x, weight, bias)
    key = (
        x.shape,
        x.stride(),
        x.dtype,
        x.device,
        weight.shape,
        weight.stride(),
        weight.dtype,
        weight.device,
        None if bias is None else (bias.shape, bias.dtype, bias.device),
        f'{stride!r} {padding!r} {dilation!r}',  # True is no number, but equal to one
        recorded,
        _dispatch.request(),
    )
    try:
        planned = _plans.get(key)
    except TypeError:  # sizes that are open cannot be compared
        planned = None
    # Whatever looks on knows PyTorch's own convolution.
    if planned is None or planned[0].backend != 'reference' or _dispatch.is_autocast(x):
        if not _dispatch.is_eager(x, weight, bias):
            return _dispatched(x, weight, bias, stride, padding, dilation)
        if planned is None:
            plan = _plan(x, weight, bias, stride, padding, dilation)
            planned = _plans.keep(key, (plan, _planned_forward(plan, x, weight, bias)))
    plan, compute = planned
    weight = take_part(weight, plan.part)
    if recorded and plan.backend != 'reference':
        return _Recorded.apply(x, weight, bias, plan, compute)
    return compute(x, weight, bias)


def _dispatched(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: object, padding: object, dilation: object
) -> Tensor:
    """Compute through PyTorch's dispatcher."""
    x, weight, bias = _dispatch.autocast(x, weight, bias)
    plan = _plan(x, weight, bias, stride, padding, dilation)
    weight = take_part(weight, plan.part)
    if plan.backend == 'reference':
        return reference.depthwise_conv2d(x, weight, bias, *plan.geometry)
    return _forward(x, weight, bias, *plan.geometry, plan.backend)


class _Plan(NamedTuple):
    """What a call comes down to once its arguments are checked: a part of the kernels, a geometry and a backend."""

    part: tuple[slice, slice] | None
    geometry: tuple[Pair, Sides, Pair]
    backend: str


_Compute = Callable[[Tensor, Tensor, Tensor | None], Tensor]
_plans = Plans()  # each with what computes it


def _planned_forward(plan: _Plan, x: Tensor, weight: Tensor, bias: Tensor | None) -> _Compute:
    """Give what computes a plan, for tensors like these, without PyTorch's dispatcher."""
    if plan.backend == 'native':
        return native.planned_forward(x, take_part(weight, plan.part), bias, *plan.geometry)
    stride, (left, right, top, bottom), dilation = plan.geometry
    if plan.backend == 'reference' and (left, top) == (right, bottom):  # nothing that PyTorch's own call lacks
        padding, groups = (top, left), weight.shape[0]
        return lambda x, weight, bias: F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    forward = reference.depthwise_conv2d if plan.backend == 'reference' else implementation(plan.backend).forward
    return lambda x, weight, bias: forward(x, weight, bias, *plan.geometry)


def _plan(x: Tensor, weight: Tensor, bias: Tensor | None, stride: object, padding: object, dilation: object) -> _Plan:
    stride, dilation, padding = _pair('stride', stride), _pair('dilation', dilation), _four_sides(padding)
    check(x, weight, bias, padding, dilation)
    part, padding = part_on_map(weight.shape[2:], x.shape[2:], stride, padding, dilation)
    weight = take_part(weight, part)
    plain = _wants_plain_convolution(x, weight, bias, stride, padding, dilation)
    return _Plan(part, (stride, padding, dilation), choose_backend(x, weight, plain=plain))


def _is_recorded(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return _is_grad_enabled() and (x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad))


def choose_backend(x: Tensor, *kernels: Tensor, plain: bool = False) -> str:
    """Choose the backend for a map and the kernels to convolve it with, checked and cropped."""

    def unsupported(backend: str) -> str | None:
        if backend in ('aten', 'native') and x.device.type != 'cpu':
            return f'it is for CPUs, and x is on {x.device}'
        if backend == 'native' and x.dtype not in _STEERED_DTYPES:
            return f'x is {x.dtype}; it takes {", ".join(map(str, _STEERED_DTYPES))}'
        if backend == 'triton':
            from . import triton  # a statement, which the compiler understands

            reasons = [triton.unsupported(x, kernel) for kernel in kernels]
            return next((reason for reason in reasons if reason), None)
        return None

    preferred = 'reference'
    if x.device.type == 'cpu' and x.dtype in _STEERED_DTYPES and not plain:
        preferred = 'aten' if _dispatch.unusable('native') else 'native'
    elif x.device.type == 'cuda' and max(max(kernel.shape[2:]) for kernel in kernels) > _LARGEST_NATIVE_ON_GPU:
        preferred = 'triton'
    return _dispatch.choose(x.device, preferred, unsupported)


def _wants_plain_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair
) -> bool:
    """Tell whether the CPU backends have nothing to add: then even the overhead of an operator is too much."""
    if x.device.type != 'cpu' or _is_compiling() or torch.jit.is_tracing() or is_open(x.shape[2:]):
        return False
    if not aten.is_plain(x, weight, stride, padding, dilation):
        return False
    kernel_size = tuple(weight.shape[2:])
    if _is_recorded(x, weight, bias):
        return native.leaves_gradients_to_onednn(x, kernel_size)
    return bool(_dispatch.unusable('native')) or native.leaves_to_onednn(x, kernel_size, stride)


@cache
def implementation(backend: str) -> ModuleType:
    """Import the module that computes a backend's ``forward``, ``input_grad`` and ``weight_grad``."""
    return import_module(f'.{backend}', __package__)


def _pair(name: str, value: int | Pair) -> Pair:
    pair = _integers(value, times=2)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f'{name} must be one positive number or (height, width); got {value!r}')
    return pair


def _four_sides(padding: int | tuple[int, ...]) -> Sides:
    sides = _integers(padding, times=4)
    if len(sides) == 2:
        height, width = sides
        sides = (width, width, height, height)
    if len(sides) != 4 or min(sides) < 0:
        raise ValueError(
            f'padding must be one number, (height, width) or (left, right, top, bottom), none negative; got {padding!r}'
        )
    return sides


def _integers(value: int | Sequence[int], times: int) -> tuple[int, ...]:
    """Repeat a single integer, or make several a tuple; it is empty if anything else is among them."""
    if is_integer(value):
        return (value,) * times
    fits = isinstance(value, (tuple, list)) and all(map(is_integer, value))
    return tuple(value) if fits else ()


def check(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Sides, dilation: Pair) -> None:
    shape, kernel_shape = x.shape, weight.shape  # a new object at every request
    if len(shape) != 4:
        raise ValueError(f'x must be (N, C, H, W); got shape {tuple(shape)}')
    if len(kernel_shape) != 4 or kernel_shape[0] != shape[1] or kernel_shape[1] != 1:
        raise ValueError(f'weight must be (C, 1, kh, kw) with C = {shape[1]} as in x; got {tuple(kernel_shape)}')
    if min(kernel_shape[2:]) < 1:
        raise ValueError(f'weight must have at least one tap each way; got {tuple(kernel_shape)}')
    if bias is not None and bias.shape != kernel_shape[:1]:
        raise ValueError(f'bias must have shape ({kernel_shape[0]},); got {tuple(bias.shape)}')
    for name, tensor in (('weight', weight), ('bias', bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise ValueError(f'{name} must have the dtype of x, {x.dtype}; got {tensor.dtype}')
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f'{name} must be on the device of x, {x.device}; got {tensor.device}')
    left, right, top, bottom = padding
    height, width = shape[2] + top + bottom, shape[3] + left + right
    reach = dilation[0] * (kernel_shape[2] - 1) + 1, dilation[1] * (kernel_shape[3] - 1) + 1
    if height < reach[0] or width < reach[1]:
        raise ValueError(
            f'padding {padding} makes the map {height} x {width}, smaller than the kernel, which covers '
            f'{reach[0]} x {reach[1]}; enlarge the padding'
        )


# The operators are opaque to the compiler, which would take apart what they call and land on the slow paths again.
# Output, input gradient and weight gradient are each linear in two tensors, and the gradients of each one are the other
# two, so any order of differentiation works. The backend travels along: gradients are computed like their output.
_GEOMETRY = 'SymInt[] stride, SymInt[] padding, SymInt[] dilation, str backend'


@torch.library.custom_op(
    'sw_mm::depthwise_conv2d',
    mutates_args=(),
    schema=f'(Tensor x, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor',
)
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Tensor:
    return implementation(backend).forward(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation))


@torch.library.custom_op(
    'sw_mm::depthwise_conv2d_input_grad',
    mutates_args=(),
    schema=f'(Tensor grad, Tensor weight, SymInt[] input_size, {_GEOMETRY}) -> Tensor',
)
def _input_grad(
    grad: Tensor,
    weight: Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Tensor:
    return _compute_input_grad(grad, weight, tuple(input_size), tuple(stride), tuple(padding), tuple(dilation), backend)


def _compute_input_grad(
    grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair, backend: str
) -> Tensor:
    return implementation(backend).input_grad(grad, weight, input_size, stride, padding, dilation)


@torch.library.custom_op(
    'sw_mm::depthwise_conv2d_weight_grad',
    mutates_args=(),
    schema=f'(Tensor x, Tensor grad, SymInt[] kernel_size, {_GEOMETRY}) -> Tensor',
)
def _weight_grad(
    x: Tensor,
    grad: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    backend: str,
) -> Tensor:
    return _compute_weight_grad(x, grad, tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), backend)


def _compute_weight_grad(
    x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair, backend: str
) -> Tensor:
    return implementation(backend).weight_grad(x, grad, kernel_size, stride, padding, dilation)


@_forward.register_fake
def _(x, weight, bias, stride, padding, dilation, backend):
    size = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return _empty_like(x, size)


@_input_grad.register_fake
def _(grad, weight, input_size, stride, padding, dilation, backend):
    return _empty_like(grad, input_size)


@_weight_grad.register_fake
def _(x, grad, kernel_size, stride, padding, dilation, backend):
    return x.new_empty(x.shape[1], 1, *kernel_size)


def _empty_like(x: Tensor, size: Sequence[int]) -> Tensor:
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    first, second, _, *ctx.geometry = inputs
    ctx.save_for_backward(first, second)


def _forward_backward(ctx, out_grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(ctx, *ctx.saved_tensors, out_grad, _input_grad, _weight_grad), *[None] * 4


def _gradients(
    ctx, x: Tensor, weight: Tensor, out_grad: Tensor, input_grad: Callable, weight_grad: Callable
) -> tuple[Tensor | None, ...]:
    return (
        input_grad(out_grad, weight, x.shape[2:], *ctx.geometry) if ctx.needs_input_grad[0] else None,
        weight_grad(x, out_grad, weight.shape[2:], *ctx.geometry) if ctx.needs_input_grad[1] else None,
        out_grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None,
    )


def _input_grad_backward(ctx, out_grad: Tensor) -> tuple[Tensor | None, ...]:
    grad, weight = ctx.saved_tensors
    return (
        _forward(out_grad, weight, None, *ctx.geometry) if ctx.needs_input_grad[0] else None,
        _weight_grad(out_grad, grad, weight.shape[2:], *ctx.geometry) if ctx.needs_input_grad[1] else None,
        *[None] * 5,
    )


def _weight_grad_backward(ctx, out_grad: Tensor) -> tuple[Tensor | None, ...]:
    x, grad = ctx.saved_tensors
    return (
        _input_grad(grad, out_grad, x.shape[2:], *ctx.geometry) if ctx.needs_input_grad[0] else None,
        _forward(x, out_grad, None, *ctx.geometry) if ctx.needs_input_grad[1] else None,
        *[None] * 5,
    )


class _Recorded(torch.autograd.Function):
    """The operator without PyTorch's dispatcher, which takes as long as a small convolution, where nobody looks."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, compute: _Compute) -> Tensor:
        ctx.geometry = *plan.geometry, plan.backend
        ctx.save_for_backward(x, weight)
        return compute(x, weight, bias)

    @staticmethod
    def backward(ctx, out_grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # once: checkpointing computes them when they are asked for
        observed = (
            _is_grad_enabled()
            or _is_compiling()
            or _is_batched(out_grad)
            or not _dispatch.is_eager(x, weight, out_grad)
        )
        operators = (_input_grad, _weight_grad) if observed else (_compute_input_grad, _compute_weight_grad)
        return *_gradients(ctx, x, weight, out_grad, *operators), None, None


_forward.register_autograd(_forward_backward, setup_context=_save)
_input_grad.register_autograd(_input_grad_backward, setup_context=_save)
_weight_grad.register_autograd(_weight_grad_backward, setup_context=_save)
_dispatch.register_autocast('depthwise_conv2d')
_dispatch.register_autocast('depthwise_conv2d_input_grad', 'depthwise_conv2d_weight_grad', cast=False)


# As for PyTorch's convolutions, every tap counts at every output pixel.
@register_flop_formula(torch.ops.sw_mm.depthwise_conv2d)
def _(x: Sequence[int], weight: Sequence[int], *_, out_shape: Sequence[int], **__) -> int:
    return 2 * prod(out_shape) * prod(weight[2:])


@register_flop_formula(torch.ops.sw_mm.depthwise_conv2d_input_grad)
def _(grad: Sequence[int], weight: Sequence[int], *_, **__) -> int:
    return 2 * prod(grad) * prod(weight[2:])


@register_flop_formula(torch.ops.sw_mm.depthwise_conv2d_weight_grad)
def _(x: Sequence[int], grad: Sequence[int], kernel_size: Sequence[int], *_, **__) -> int:
    return 2 * prod(grad) * prod(kernel_size)
