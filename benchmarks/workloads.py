"""The layers that are compiled and timed: those of the models at 224 x 224 pixels, and a grid of plain sizes.

A layer is a description, not a module: enough to make its tensors and to count its work.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch

from sw_mm.backbones import ShiftWiseNet
from sw_mm.kernels import ShiftTables, shift_tables
from sw_mm.layers import ShiftWiseConv2d

IMAGE = 224
STRIDES = (4, 8, 16, 32)

_Size = tuple[int, int]


@dataclass(frozen=True)
class Depthwise:
    """A depthwise convolution.

    Attributes:
        channels: Channels of the map.
        size: Height and width of the map.
        kernel_size: Height and width of the kernel.
        padding: Zeros on the left, right, top and bottom.
        dilation: Distance of neighbouring taps, both ways.
        stride: Distance on the map of what neighbouring results see, both ways.
    """

    channels: int
    size: _Size
    kernel_size: _Size
    padding: tuple[int, int, int, int]
    dilation: int = 1
    stride: int = 1

    def __str__(self) -> str:
        dilation = f' d{self.dilation}' if self.dilation > 1 else ''
        stride = f' s{self.stride}' if self.stride > 1 else ''
        return f'{self.channels}x{_times(self.size)} k{_times(self.kernel_size)}{dilation}{stride}'

    @property
    def out_size(self) -> _Size:
        """Height and width of the result."""
        left, right, top, bottom = self.padding
        padded = self.size[0] + top + bottom, self.size[1] + left + right
        return tuple(
            (extent - self.dilation * (taps - 1) - 1) // self.stride + 1
            for extent, taps in zip(padded, self.kernel_size, strict=True)
        )

    def useful_macs(self, batch: int = 1) -> int:
        """Multiply-accumulates on data; taps that lie on padding are not counted."""
        before = self.padding[2], self.padding[0]
        rows_and_columns = (
            sum(
                0 <= position * self.stride + self.dilation * tap - before[axis] < self.size[axis]
                for position in range(self.out_size[axis])
                for tap in range(self.kernel_size[axis])
            )
            for axis in (0, 1)
        )
        return batch * self.channels * prod(rows_and_columns)

    def min_bytes(self, batch: int, itemsize: int) -> int:
        """Bytes of one read of the input, or output, and one write of the other, whichever way the pass goes."""
        return batch * self.channels * (prod(self.size) + prod(self.out_size)) * itemsize


@dataclass(frozen=True)
class Shift:
    """A shift-wise convolution.

    Attributes:
        channels: Channels that go through the operator.
        size: Height and width of the map.
        kernel_size: Nominal length of the strips.
        small_kernel: Side of the small filters.
        num_edges: Independent layouts that are summed.
    """

    channels: int
    size: _Size
    kernel_size: int
    small_kernel: int
    num_edges: int

    def __str__(self) -> str:
        return f'{self.channels}x{_times(self.size)} {self.kernel_size}/{self.small_kernel}'

    @cached_property
    def tables(self) -> ShiftTables:
        return shift_tables(self.channels, self.kernel_size, self.small_kernel, self.num_edges)

    def branches(self, deploy: bool) -> tuple[Depthwise, ...]:
        """Horizontal and vertical strip, and the centred kernel unless it is folded into them."""
        k, length = self.small_kernel, self.tables.strip_length
        along, across = self.tables.strip_padding, (k // 2, k // 2)
        horizontal = Depthwise(self.channels, self.size, (k, length), along + across)
        vertical = Depthwise(self.channels, self.size, (length, k), across + along)
        centred = Depthwise(self.channels, self.size, (k, k), across + across)
        return (horizontal, vertical) if deploy else (horizontal, vertical, centred)

    def useful_macs(self, batch: int = 1, deploy: bool = False) -> int:
        """Multiply-accumulates of the branches on data."""
        return sum(branch.useful_macs(batch) for branch in self.branches(deploy))

    def min_bytes(self, batch: int, itemsize: int, deploy: bool = False) -> int:
        """Bytes of one read of the input and one write of every output, or the reverse for the gradient."""
        return batch * self.channels * prod(self.size) * itemsize * (2 if deploy else 4)


Layer = Depthwise | Shift


def same(channels: int, size: int, kernel_size: int | _Size, dilation: int = 1, stride: int = 1) -> Depthwise:
    """Describe a convolution of a square map that keeps its size, or divides it by the stride.

    An even kernel looks one pixel further back.
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    vertical, horizontal = dilation * (height - 1), dilation * (width - 1)
    padding = (horizontal - horizontal // 2, horizontal // 2, vertical - vertical // 2, vertical // 2)
    return Depthwise(channels, (size, size), (height, width), padding, dilation, stride)


def shiftwise(arch: str) -> Counter[Shift]:
    """Layers of a `ShiftWiseNet`, read from the net itself."""
    with torch.device('meta'):
        net = ShiftWiseNet(arch)
    layers: Counter[Shift] = Counter()
    for stage, stride in zip(net.stages, STRIDES, strict=True):
        for module in stage.modules():
            if isinstance(module, ShiftWiseConv2d):
                tables = module.tables
                size = (IMAGE // stride,) * 2
                layers[Shift(tables.channels, size, tables.kernel_size, tables.small_kernel, tables.num_edges)] += 1
    return layers


def replknet_31b() -> Counter[Depthwise]:
    """Depthwise layers of RepLKNet-31B (CVPR 2022, table 5 and section 4.1 of the paper).

    Those are the large kernels, the 5 x 5 beside them, and the 3 x 3 of the stem and of the transitions, all but the
    first of which halve the map.
    """
    layers: Counter[Depthwise] = Counter([same(128, 112, 3)])
    for channels, size in ((128, 112), (256, 56), (512, 28), (1024, 14)):
        layers[same(channels, size, 3, stride=2)] += 1
    for channels, kernel, depth, size in _stages((128, 256, 512, 1024), (31, 29, 27, 13), (2, 2, 18, 2)):
        layers[same(channels, size, kernel)] += depth
        layers[same(channels, size, 5)] += depth
    return layers


def slak_t() -> Counter[Depthwise]:
    """Two strips and the 5 x 5 of every block of SLaK-T at width 1.3 (ICLR 2023; official ``models/SLaK.py``)."""
    layers: Counter[Depthwise] = Counter()
    for channels, kernel, depth, size in _stages((124, 249, 499, 998), (51, 49, 47, 13), (3, 3, 9, 3)):
        for kernel_size in ((kernel, 5), (5, kernel), (5, 5)):
            layers[same(channels, size, kernel_size)] += depth
    return layers


def unireplknet_t() -> Counter[Depthwise]:
    """Kernels of UniRepLKNet-T, dilated branches of the 13 x 13 included (CVPR 2024; official ``unireplknet.py``)."""
    branches = ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
    layers: Counter[Depthwise] = Counter()
    for channels, large, depth, size in _stages((80, 160, 320, 640), (0, 3, 9, 3), (3, 3, 18, 3)):
        if large:
            for kernel, dilation in ((13, 1), *branches):
                layers[same(channels, size, kernel, dilation)] += large
        if depth > large:
            layers[same(channels, size, 3)] += depth - large
    return layers


MODELS: dict[str, Callable[[], Counter]] = {
    'SW-T': lambda: shiftwise('tiny'),
    'SW-S': lambda: shiftwise('small'),
    'UniRepLKNet-T': unireplknet_t,
    'SLaK-T': slak_t,
    'RepLKNet-31B': replknet_31b,
}


def grid() -> list[Depthwise]:
    """Plain sizes that show where a method is good: maps of four stages, square kernels and strips."""
    maps = ((64, 56), (128, 28), (256, 14), (512, 7))
    kernels = (3, 5, 7, 13, 31, (51, 5), (5, 51))
    return [same(*channels_and_size, kernel) for channels_and_size in maps for kernel in kernels]


def growth() -> dict[str, list[tuple[int, Depthwise, int]]]:
    """Series of ``(value, layer, batch)`` in which one quantity of a middling layer grows."""
    return {
        'K': [(k, same(128, 28, k), 8) for k in (3, 7, 13, 19, 25, 31, 51)],
        'H': [(h, same(128, h, 13), 8) for h in (7, 14, 28, 56)],
        'C': [(c, same(c, 28, 13), 8) for c in (32, 64, 128, 256)],
        'N': [(n, same(128, 28, 13), n) for n in (1, 2, 4, 8, 16)],
    }


def _stages(*columns: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
    return zip(*columns, (IMAGE // stride for stride in STRIDES), strict=True)


def _times(size: _Size) -> str:
    return 'x'.join(map(str, size))
