"""Shift-wise convolution on a CPU: one depthwise convolution for each branch."""

from collections.abc import Sequence

from torch import Tensor

from ..depthwise_conv2d import aten
from ..depthwise_conv2d.geometry import Sides

_ONE = (1, 1)


def maps(x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> list[Tensor]:
    """Convolve ``(N, C, H, W)`` with each of the kernels, every one with its padding: left, right, top, bottom."""
    return [
        aten.forward(x, kernel, None, _ONE, padding, _ONE) for kernel, padding in zip(kernels, paddings, strict=True)
    ]


def folded(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, paddings: Sequence[Sides]) -> Tensor:
    """Sum of the :func:`maps` and the bias."""
    out = aten.forward(x, kernels[0], bias, _ONE, paddings[0], _ONE)
    for branch in maps(x, kernels[1:], paddings[1:]):
        out += branch
    return out


def input_grad(grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> Tensor:
    """Gradient of the :func:`maps` with respect to the input."""
    size = tuple(grads[0].shape[2:])
    branches = [
        aten.input_grad(grad, kernel, size, _ONE, padding, _ONE)
        for grad, kernel, padding in zip(grads, kernels, paddings, strict=True)
    ]
    for branch in branches[1:]:
        branches[0] += branch
    return branches[0]


def weight_grads(
    x: Tensor, grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]
) -> list[Tensor]:
    """Gradients of the :func:`maps` with respect to the kernels, of which only the shapes matter."""
    return [
        aten.weight_grad(x, grad, tuple(kernel.shape[2:]), _ONE, padding, _ONE)
        for grad, kernel, padding in zip(grads, kernels, paddings, strict=True)
    ]
