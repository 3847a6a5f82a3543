"""The kernels of a shift-wise convolution, laid out from its small filters.

Shifting the response of a small filter is the same as placing the filter at another spot of a large, zero padded
kernel. So the filters are gathered into a horizontal strip, a vertical strip and a centred kernel first, and the
expanded map of the literal form (``num_shifts`` times the size of the input) never exists.
"""

import torch
from torch import Tensor

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
