"""Shift-wise convolution on a CPU, in kernels compiled for it: all branches of a block of channels in turn."""

from collections.abc import Sequence

from torch import Tensor

from ..depthwise_conv2d import native
from ..depthwise_conv2d.geometry import Sides

_ONE = (1, 1)


def maps(x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> list[Tensor]:
    """Convolve ``(N, C, H, W)`` with each of the kernels, every one with its padding: left, right, top, bottom."""
    return native.convolve([x] * len(kernels), kernels, _geometries(paddings), x.shape[2:])


def folded(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, paddings: Sequence[Sides]) -> Tensor:
    """Sum of the :func:`maps` and the bias, rounded once."""
    return native.convolve([x] * len(kernels), kernels, _geometries(paddings), x.shape[2:], bias, summed=True)[0]


def input_grad(grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> Tensor:
    """Gradient of the :func:`maps` with respect to the input."""
    size = grads[0].shape[2:]
    return native.convolve(grads, kernels, _geometries(paddings), size, summed=True, transposed=True)[0]


def weight_grads(
    x: Tensor, grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]
) -> list[Tensor]:
    """Gradients of the :func:`maps` with respect to the kernels, of which only the shapes matter."""
    return native.weight_grads(x, grads, [kernel.shape[2:] for kernel in kernels], _geometries(paddings))


def _geometries(paddings: Sequence[Sides]) -> list[native.Geometry]:
    return [(_ONE, padding, _ONE) for padding in paddings]
