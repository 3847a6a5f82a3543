"""Depthwise convolution and its gradients on a CPU, in kernels compiled for it: any geometry, sums in fp32.

Maps of any strides are read and written as they are. What oneDNN is better at, small kernels on channels_last maps, is
left to it; on contiguous maps they have kernels of their own. Very large fp32 kernels on large maps are products of
spectra where PyTorch has MKL: a forward pass of 31 x 31 takes 0.6 to 0.8 of the time at 56 x 56, 0.5 to 0.6 at
128 x 128. An infinite pixel or NaN spoils its whole map there; and small kernels on contiguous maps multiply the zeros
of the padding, so that an infinite tap gives NaN at the edges.
"""

import struct
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from .. import _native
from .._plans import Plans
from . import aten
from .geometry import Pair, Sides, memory_format_of, output_size

Geometry = tuple[Pair, Sides, Pair]  # stride, padding, dilation

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
# Up to so many taps that a pixel meets, a convolution of a channels_last map moves more than it computes, and oneDNN
# does so better, since it needs no copy. It is more on maps from a certain size on.
_FEW_TAPS = 25
_FEW_TAPS_ON_LARGE_MAPS = 49
_LARGE_MAP = 1500
# The same for the gradient of the kernels, in fp32; in 16 bits oneDNN's is slower in any case.
_FEW_TAPS_TO_DIFFERENTIATE = 9
# Multiply-adds on data, as the compiled kernels do them, that each point of a Fourier transform has to replace: in a
# convolution, and in the gradient of the kernels.
_MACS_PER_POINT = {torch.contiguous_format: 300, torch.channels_last: 315}
_MACS_PER_POINT_TO_DIFFERENTIATE = {torch.contiguous_format: 315, torch.channels_last: 385}
_HAS_MKL = torch.backends.mkl.is_available()
# Channels of all parts of the batch, at least, that the gradient of the kernels is computed for apart, so that threads
# can share the work. The parts depend on shapes only, and so does the result.
_CHANNELS = 512

_get_num_threads = torch.get_num_threads  # to find it at every call takes as long again
_plans = Plans()


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Convolve every channel with its own kernel; arguments and result are those of :func:`.aten.forward`."""
    return _planned(planned_forward, x, weight, bias, stride, padding, dilation)(x, weight, bias)


def planned_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Give what computes :func:`forward` of tensors that have the sizes, strides and dtypes of these."""
    kernel_size, geometry = weight.shape[2:], (stride, padding, dilation)
    if leaves_to_onednn(x, kernel_size, stride) or _has_spectra(x, x.shape[2:], kernel_size, *geometry):
        return lambda x, weight, bias: aten.forward(x, weight, bias, *geometry)
    compiled = _Convolutions([x], [weight], [geometry], output_size(x.shape[2:], kernel_size, *geometry), bias)
    return lambda x, weight, bias: compiled((x,), (weight,), bias)[0]


def input_grad(grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to its input of the given size, in the memory format of ``grad``."""
    return _planned(_planned_input_grad, grad, weight, input_size, stride, padding, dilation)(grad, weight)


def _planned_input_grad(
    grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> Callable[[Tensor, Tensor], Tensor]:
    kernel_size, geometry = weight.shape[2:], (stride, padding, dilation)
    # oneDNN takes a hundred times as long for this gradient in 16 bits if there is a stride.
    onednn = leaves_to_onednn(grad, kernel_size, (1, 1)) and (stride == (1, 1) or grad.dtype is torch.float32)
    if onednn or _has_spectra(grad, input_size, kernel_size, *geometry):
        return lambda grad, weight: aten.input_grad(grad, weight, input_size, *geometry)
    compiled = _Convolutions([grad], [weight], [geometry], input_size, transposed=True)
    return lambda grad, weight: compiled((grad,), (weight,))[0]


def weight_grad(x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to its kernels ``(C, 1, kh, kw)``, accumulated in fp32."""
    return _planned(_planned_weight_grad, x, grad, kernel_size, stride, padding, dilation)(x, grad)


def _planned_weight_grad(
    x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> Callable[[Tensor, Tensor], Tensor]:
    geometry, least = (stride, padding, dilation), _MACS_PER_POINT_TO_DIFFERENTIATE
    if leaves_gradients_to_onednn(x, kernel_size) or _has_spectra(x, x.shape[2:], kernel_size, *geometry, least):
        return lambda x, grad: aten.weight_grad(x, grad, kernel_size, *geometry)
    compiled = _WeightGrads(x, [grad], [kernel_size], [geometry])
    return lambda x, grad: compiled(x, (grad,))[0]


def leaves_to_onednn(x: Tensor, kernel_size: Pair, stride: Pair) -> bool:
    """Tell whether :func:`forward` leaves a convolution to PyTorch's own."""
    if memory_format_of(x) is not torch.channels_last or aten.has_slow_width(kernel_size, stride):
        return False
    if x.dtype is torch.float16 and not aten.HAS_FP16:
        return False
    large = x.shape[2] * x.shape[3] >= _LARGE_MAP
    return prod(kernel_size) <= prod(stride) * (_FEW_TAPS_ON_LARGE_MAPS if large else _FEW_TAPS)


def leaves_gradients_to_onednn(x: Tensor, kernel_size: Pair) -> bool:
    """Tell whether both gradients of :func:`forward` are left to PyTorch's own convolution."""
    channels_last = memory_format_of(x) is torch.channels_last
    return x.dtype is torch.float32 and channels_last and prod(kernel_size) <= _FEW_TAPS_TO_DIFFERENTIATE


def _has_spectra(
    x: Tensor,
    size: Pair,
    kernel_size: Pair,
    stride: Pair,
    padding: Sides,
    dilation: Pair,
    least: dict[torch.memory_format, int] = _MACS_PER_POINT,
) -> bool:
    """Tell whether a pass is a product of spectra, ``x`` being what it reads."""
    if not _HAS_MKL or x.dtype is not torch.float32 or prod(kernel_size) < min(least.values()) or not x.numel():
        return False
    return aten.fft_pays(tuple(size), tuple(kernel_size), stride, padding, dilation, least[memory_format_of(x)])


def convolve(
    sources: Sequence[Tensor],
    kernels: Sequence[Tensor],
    geometries: Sequence[Geometry],
    size: Pair,
    bias: Tensor | None = None,
    summed: bool = False,
    transposed: bool = False,
) -> list[Tensor]:
    """Convolve maps with kernels, pair by pair; a map that comes several times is read once.

    Args:
        sources: Maps ``(N, C, H, W)``, or gradients of outputs.
        kernels: ``(C, 1, kh, kw)`` each.
        geometries: Stride, padding and dilation of each.
        size: Height and width of the results.
        bias: ``(C,)`` or None, for the first result.
        summed: Whether to give the sum of the results only.
        transposed: Whether the results are gradients with respect to the input.

    Returns:
        The results, in the dtype and memory format of the first source.
    """
    lists = list(sources), list(kernels), list(geometries)
    return _planned(_Convolutions, *lists, size, bias, summed, transposed)(sources, kernels, bias)


def weight_grads(
    x: Tensor, grads: Sequence[Tensor], kernel_sizes: Sequence[Pair], geometries: Sequence[Geometry]
) -> list[Tensor]:
    """Gradients of :func:`convolve` of one map with respect to the kernels, accumulated in fp32.

    Args:
        x: Map ``(N, C, H, W)``.
        grads: Gradients of the results.
        kernel_sizes: Height and width of each kernel.
        geometries: Stride, padding and dilation of each.

    Returns:
        Gradients ``(C, 1, kh, kw)`` in the dtype of ``x``.
    """
    return _planned(_WeightGrads, x, list(grads), list(kernel_sizes), list(geometries))(x, grads)


class _Convolutions:
    """:func:`convolve` for tensors that have the sizes, strides and dtypes of those it is made for."""

    def __init__(
        self,
        sources: Sequence[Tensor],
        kernels: Sequence[Tensor],
        geometries: Sequence[Geometry],
        size: Pair,
        bias: Tensor | None = None,
        summed: bool = False,
        transposed: bool = False,
    ) -> None:
        _check(sources, geometries, kernels, bias)
        first, count = sources[0], 1 if summed else len(sources)
        result = torch.empty(
            *first.shape[:2], *size, dtype=first.dtype, device='meta', memory_format=memory_format_of(first)
        )
        self._results = [(result.shape, result.stride())] * count
        branches = [
            (*_map(source), *_kernel(kernel), *_axes(*geometry), 0 if summed else index)
            for index, (source, kernel, geometry) in enumerate(zip(sources, kernels, geometries, strict=True))
        ]
        head = len(branches), count, *first.shape[:2], transposed
        self._numbers = _packed([head, *branches, *[_map(result)] * count])
        self._addresses = struct.Struct(f'{2 * (len(branches) + count)}P')
        self._compute, self._openmp = _native.library().sw_mm_convolve, _native.openmp()

    def __call__(
        self, sources: Sequence[Tensor], kernels: Sequence[Tensor], bias: Tensor | None = None
    ) -> list[Tensor]:
        results = [sources[0].new_empty_strided(*result) for result in self._results]
        addresses = [tensor.data_ptr() for pair in zip(sources, kernels, strict=True) for tensor in pair]
        for result in results:
            addresses += result.data_ptr(), 0
        if bias is not None:
            bias = bias.float().contiguous()
            addresses[2 * len(sources) + 1] = bias.data_ptr()
        failed = self._compute(self._numbers, self._addresses.pack(*addresses), self._openmp, _get_num_threads())
        if failed:
            raise MemoryError(f'there is not enough memory to convolve a map of shape {tuple(sources[0].shape)}')
        return results


class _WeightGrads:
    """:func:`weight_grads` for tensors that have the sizes, strides and dtypes of those it is made for."""

    def __init__(
        self, x: Tensor, grads: Sequence[Tensor], kernel_sizes: Sequence[Pair], geometries: Sequence[Geometry]
    ) -> None:
        _check([x, *grads], geometries)
        if any(grad.shape != grads[0].shape for grad in grads):
            raise ValueError(f'gradients must be of one shape; got {[tuple(grad.shape) for grad in grads]}')
        images, channels = x.shape[:2]
        kernels = [torch.empty(channels, 1, *size, dtype=torch.float32, device='meta') for size in kernel_sizes]
        self._kernels = [(kernel.shape, kernel.stride()) for kernel in kernels]
        gradients = [
            (*_map(grad), *_kernel(kernel), *_axes(*geometry))
            for grad, kernel, geometry in zip(grads, kernels, geometries, strict=True)
        ]
        parts = max(min(images, -(-_CHANNELS // max(channels, 1))), 1)
        self._numbers = _packed([(len(grads), images, channels, parts), _map(x), *gradients])
        self._addresses = struct.Struct(f'{1 + 2 * len(grads)}P')
        self._compute, self._openmp = _native.library().sw_mm_weight_grads, _native.openmp()

    def __call__(self, x: Tensor, grads: Sequence[Tensor]) -> list[Tensor]:
        kernels = [x.new_empty_strided(*kernel, dtype=torch.float32) for kernel in self._kernels]
        addresses = [tensor.data_ptr() for pair in zip(grads, kernels, strict=True) for tensor in pair]
        failed = self._compute(
            self._numbers, self._addresses.pack(x.data_ptr(), *addresses), self._openmp, _get_num_threads()
        )
        if failed:
            raise MemoryError(f'there is not enough memory for gradients on a map of shape {tuple(x.shape)}')
        return kernels if x.dtype is torch.float32 else [kernel.to(x.dtype) for kernel in kernels]


def _check(
    maps: Sequence[Tensor],
    geometries: Sequence[Geometry],
    kernels: Sequence[Tensor] = (),
    bias: Tensor | None = None,
) -> None:
    """The kernels read memory: whoever calls the operators by themselves gets an error instead of a crash."""
    for tensor in (*maps, *kernels, *(() if bias is None else (bias,))):
        if not tensor.is_cpu or tensor.dtype not in _TYPES:
            raise ValueError(f'tensors must be {tuple(_TYPES)} on the CPU; got {tensor.dtype} on {tensor.device}')
    first = maps[0]
    for tensor in maps:
        if tensor.dim() != 4 or tensor.shape[:2] != first.shape[:2]:
            raise ValueError(f'maps must have the shape {tuple(first.shape[:2])} + (H, W); got {tuple(tensor.shape)}')
    for kernel in kernels:
        if kernel.dim() != 4 or kernel.shape[:2] != (first.shape[1], 1):
            raise ValueError(f'kernels must be ({first.shape[1]}, 1, kh, kw); got {tuple(kernel.shape)}')
    if bias is not None and bias.shape != first.shape[1:2]:
        raise ValueError(f'bias must have shape ({first.shape[1]},); got {tuple(bias.shape)}')
    for stride, _, dilation in geometries:
        if min(*stride, *dilation) < 1:
            raise ValueError(f'stride and dilation must be positive; got {stride} and {dilation}')


def _planned(make: Callable[..., Callable], *arguments: object) -> Callable:
    """Give what is made of arguments, the same for all whose tensors have the same sizes, strides and dtypes."""
    key = make, *map(_like, arguments)
    return _plans.get(key) or _plans.keep(key, make(*arguments))


def _like(argument: object) -> object:
    """What a plan depends on in an argument; those that hold several tensors are lists."""
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.is_cpu
    return tuple(map(_like, argument)) if isinstance(argument, list) else argument


def _packed(structures: Sequence[Sequence[int]]) -> bytes:
    numbers = [number for structure in structures for number in structure]
    return struct.pack(f'{len(numbers)}q', *numbers)


def _map(tensor: Tensor) -> tuple[int, ...]:
    """A map without its address, which is put in the place of the first number."""
    return 0, _TYPES[tensor.dtype], *tensor.stride(), *tensor.shape[2:]


def _kernel(kernel: Tensor) -> tuple[int, ...]:
    """Kernels, as a map of one image with as many channels as there are kernels."""
    channel, _, row, column = kernel.stride()
    return 0, _TYPES[kernel.dtype], 0, channel, row, column, *kernel.shape[2:]


def _axes(stride: Pair, padding: Sides, dilation: Pair) -> tuple[int, ...]:
    left, _, top, _ = padding
    return stride[0], dilation[0], top, stride[1], dilation[1], left
