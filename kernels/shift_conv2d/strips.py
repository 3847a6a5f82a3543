"""Shift-wise convolution as what it is: three depthwise convolutions with kernels laid out from small filters.

Shifting the response of a small filter is the same as placing the filter at another spot of a large, zero padded
kernel. So the filters are gathered into a horizontal strip, a vertical strip and a centred kernel first, and the
expanded map of the literal form (``num_shifts`` times the size of the input) never exists.
"""

import torch
from torch import Tensor

from ..depthwise_conv2d import depthwise_conv2d
from .tables import ShiftTables


def shift_strips(
    weight: Tensor, tables: ShiftTables, connections: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the filters of a shift-wise convolution out as three depthwise kernels.

    Args:
        weight: Filters ``(C * num_shifts, 1, k, k)``, summed over the paths.
        tables: Connection tables.
        connections: ``tables.connection_matrix()`` as a tensor, if the caller keeps one; else it is made anew.

    Returns:
        Horizontal strip ``(C, 1, k, L)``, vertical strip ``(C, 1, L, k)`` with ``L = tables.strip_length``, and the
        centred kernel ``(C, 1, k, k)``.

    Raises:
        ValueError: If the shape of ``weight`` does not fit the tables.
    """
    channels, num_shifts, k = tables.channels, tables.num_shifts, tables.small_kernel
    if weight.shape != (channels * num_shifts, 1, k, k):
        raise ValueError(
            f'weight must be (C * num_shifts, 1, k, k) = {(channels * num_shifts, 1, k, k)} for these tables; '
            f'got {tuple(weight.shape)}'
        )
    if connections is None:
        connections = torch.as_tensor(tables.connection_matrix())
    # A product with the matrix of counts, not a gather: its gradient is a product too, hence deterministic everywhere,
    # where the gradient of a gather with repeated indices needs atomics on a GPU.
    slots = connections.to(weight) @ weight.reshape(channels, num_shifts, k * k)
    horizontal, vertical, centre = slots.reshape(channels, -1, k, k).split([num_shifts, num_shifts, 1], dim=1)
    return (
        horizontal.transpose(1, 2).reshape(channels, 1, k, num_shifts * k),
        vertical.reshape(channels, 1, num_shifts * k, k),
        centre,
    )


def shift_conv2d(
    x: Tensor, weight: Tensor, tables: ShiftTables, connections: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Shift-wise convolution: horizontal, vertical and centred map, before any normalisation.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Filters ``(C * num_shifts, 1, k, k)``, summed over the paths.
        tables: Connection tables.
        connections: ``tables.connection_matrix()`` as a tensor, if the caller keeps one; else it is made anew.

    Returns:
        Three maps ``(N, C, H, W)``.

    Raises:
        ValueError: If a shape does not fit the tables.
    """
    _check_map(x, tables)
    horizontal, vertical, centre = shift_strips(weight, tables, connections)
    along, across = tables.strip_padding, (tables.small_kernel // 2,) * 2
    return (
        depthwise_conv2d(x, horizontal, padding=along + across),
        depthwise_conv2d(x, vertical, padding=across + along),
        depthwise_conv2d(x, centre, padding=across + across),
    )


def folded_shift_conv2d(x: Tensor, horizontal: Tensor, vertical: Tensor, bias: Tensor, tables: ShiftTables) -> Tensor:
    """Shift-wise convolution for inference, with norms, centred branch and shortcut folded into the strips.

    Args:
        x: Input ``(N, C, H, W)``.
        horizontal: Strip ``(C, 1, k, L)`` with ``L = tables.strip_length``.
        vertical: Strip ``(C, 1, L, k)``.
        bias: ``(C,)``.
        tables: Connection tables; only their geometry is used.

    Returns:
        The sum of the branches, ``(N, C, H, W)``.

    Raises:
        ValueError: If a shape does not fit the tables.
    """
    _check_map(x, tables)
    channels, k, length = tables.channels, tables.small_kernel, tables.strip_length
    for name, strip, shape in (
        ('horizontal', horizontal, (channels, 1, k, length)),
        ('vertical', vertical, (channels, 1, length, k)),
    ):
        if strip.shape != shape:
            raise ValueError(f'{name} must have shape {shape} for these tables; got {tuple(strip.shape)}')
    along, across = tables.strip_padding, (tables.small_kernel // 2,) * 2
    return depthwise_conv2d(x, horizontal, bias, padding=along + across) + depthwise_conv2d(
        x, vertical, padding=across + along
    )


def _check_map(x: Tensor, tables: ShiftTables) -> None:
    if x.dim() != 4 or x.shape[1] != tables.channels:
        raise ValueError(f'x must be (N, C, H, W) with C = {tables.channels} as in the tables; got {tuple(x.shape)}')
