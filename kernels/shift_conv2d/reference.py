"""Shift-wise convolution written out literally: convolve, then slice and add.

Slow and memory hungry; it exists to say what the operator means and to prove the other forms right.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .tables import ShiftTables


def shift_conv2d(x: Tensor, weight: Tensor, tables: ShiftTables) -> tuple[Tensor, Tensor, Tensor]:
    """Shift-wise convolution in the order of the official code.

    ``F`` is the response of every filter, computed with padding ``k - 1``, so it is larger than the map by ``k // 2``
    on each side. With ``s_i`` the displacement of slot ``i`` and ``p[e, c]`` the filters in the slots of edge ``e``::

        horizontal[c](y, x) = sum over e, i of F[c, p[e, c][i]](y + k // 2, x - s_i)
        vertical[c](y, x)   = sum over e, i of F[c, p[e, c][i]](y - s_i, x + k // 2)
        centred[c](y, x)    = sum over e    of F[c, r[e, c]](y + k // 2, x + k // 2)

    where what lies outside of ``F`` counts as zero.

    Args:
        x: Input ``(N, C, H, W)``.
        weight: Filters ``(C * num_shifts, 1, k, k)``, summed over the paths.
        tables: Connection tables.

    Returns:
        Horizontal, vertical and centred map, ``(N, C, H, W)`` each.
    """
    size = x.shape[-2:]
    margin = tables.small_kernel // 2
    responses = F.conv2d(x, weight, padding=tables.small_kernel - 1, groups=tables.channels)
    responses = responses.unflatten(1, (tables.channels, tables.num_shifts))
    channel = torch.arange(tables.channels, device=x.device)

    def filters(table) -> Tensor:
        return responses[:, channel, torch.tensor(table, device=x.device)]

    horizontal, vertical, centred = (torch.zeros_like(x) for _ in range(3))
    for edge in range(tables.num_edges):
        for slot, shift in enumerate(tables.shifts.tolist()):
            horizontal = horizontal + _window(filters(tables.horizontal[:, edge, slot]), margin, -shift, size)
            vertical = vertical + _window(filters(tables.vertical[:, edge, slot]), -shift, margin, size)
        centred = centred + _window(filters(tables.identity[:, edge]), margin, margin, size)
    return horizontal, vertical, centred


def _window(response: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """Cut the window of the given size at ``(top, left)``, with zeros where it leaves the map."""
    window = response[..., max(top, 0) : max(top + size[0], 0), max(left, 0) : max(left + size[1], 0)]
    missing_top, missing_left = min(max(-top, 0), size[0]), min(max(-left, 0), size[1])
    return F.pad(
        window,
        (
            missing_left,
            size[1] - missing_left - window.shape[-1],
            missing_top,
            size[0] - missing_top - window.shape[-2],
        ),
    )
