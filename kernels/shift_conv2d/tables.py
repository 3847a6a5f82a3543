"""Connection tables of the shift-wise convolution: which filter sits in which slot of a strip.

The tables are part of a trained model although no checkpoint stores them, so they are generated exactly as the
official code does: from the 32-bit Mersenne Twister seeded with 123. The stream is drawn from a private
``numpy.random.RandomState``; no global generator is read, seeded or advanced.

Source: ShiftwiseConv (CVPR 2025, arXiv:2401.12736), https://github.com/lidc54/shift-wiseConv.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..arguments import number_in, positive_integer

_SEED = 123


@dataclass(frozen=True, eq=False)
class ShiftTables:
    """Geometry and connections of one shift-wise convolution.

    A long strip of ``num_shifts`` slots is laid out from small filters: channel ``c`` owns ``num_shifts`` filters, and
    in each of ``num_edges`` layouts every slot of the strip takes one of them. Slot ``i`` covers the taps
    ``[i * small_kernel, (i + 1) * small_kernel)`` of the strip, and tap ``t`` lies ``t - kernel_size // 2`` pixels
    from the output.

    Instances come from ``shift_tables``, are immutable, and are shared: equal geometry gives the same object.

    Attributes:
        channels: Channels ``C`` that go through the operator.
        kernel_size: Nominal length ``M`` of the strips.
        small_kernel: Side ``k`` of the small filters, odd.
        num_edges: Independent layouts ``E`` that are summed.
        horizontal: Filter in each slot of the horizontal strip, int64 ``(C, E, num_shifts)``.
        vertical: Filter in each slot of the vertical strip, int64 ``(C, E, num_shifts)``.
        identity: Filter of the centred branch, int64 ``(C, E)``.
    """

    channels: int
    kernel_size: int
    small_kernel: int
    num_edges: int
    horizontal: np.ndarray
    vertical: np.ndarray
    identity: np.ndarray

    def __reduce__(self):
        # Copies and pickles are four integers that lead back to the shared object.
        return shift_tables, (self.channels, self.kernel_size, self.small_kernel, self.num_edges)

    @property
    def num_shifts(self) -> int:
        """Filters per channel, and slots per strip: ``ceil(kernel_size / small_kernel)``."""
        return -(-self.kernel_size // self.small_kernel)

    @property
    def strip_length(self) -> int:
        """Taps of a strip, ``num_shifts * small_kernel``; may exceed ``kernel_size``."""
        return self.num_shifts * self.small_kernel

    @property
    def strip_padding(self) -> tuple[int, int]:
        """Zero padding before and after the long axis of a strip; unequal where the strip is off-centre."""
        before = self.kernel_size // 2
        return before, self.strip_length - 1 - before

    @property
    def shifts(self) -> np.ndarray:
        """Signed displacement of each slot's filter response in pixels, int64 ``(num_shifts,)``."""
        slots = np.arange(self.num_shifts)
        return self.kernel_size // 2 - slots * self.small_kernel - (self.small_kernel - 1)

    def connection_matrix(self) -> np.ndarray:
        """Express the whole layout as one matrix per channel.

        Returns:
            Float32 ``(C, 2 * num_shifts + 1, num_shifts)``. Entry ``(c, s, v)`` counts the edges in which filter ``v``
            of channel ``c`` sits in slot ``s``; slots are those of the horizontal strip, then of the vertical strip,
            then the centred branch. Multiplying it with a channel's filters lays out its three kernels.
        """
        slots = np.concatenate([self.horizontal, self.vertical, self.identity[:, :, None]], axis=2)
        filters = np.arange(self.num_shifts)
        return (slots[..., None] == filters).sum(axis=1).astype(np.float32)

    def official_layout(self) -> dict[str, np.ndarray]:
        """Return the tables as the official CUDA kernel reads them, for comparison with its checkpoints.

        Returns:
            Int32 arrays: ``pad_hv`` ``(C * num_shifts, 2 * E)``, for each filter its horizontal displacement in every
            edge, then its vertical ones; ``idx_identit`` ``(C, E)``, rows of the filters that feed the centred branch;
            ``idx_out`` ``(C * num_shifts,)``, the channel that each filter belongs to.
        """
        shift_of_filter = [self.shifts[np.argsort(table, axis=2)] for table in (self.horizontal, self.vertical)]
        pad_hv = np.concatenate(shift_of_filter, axis=1).transpose(0, 2, 1).reshape(-1, 2 * self.num_edges)
        first_filter = np.arange(self.channels)[:, None] * self.num_shifts
        layout = {
            'pad_hv': pad_hv,
            'idx_identit': first_filter + self.identity,
            'idx_out': np.repeat(np.arange(self.channels), self.num_shifts),
        }
        return {name: np.ascontiguousarray(table, dtype=np.int32) for name, table in layout.items()}


def shift_tables(channels: int, kernel_size: int, small_kernel: int, num_edges: int) -> ShiftTables:
    """Generate the connection tables that the official weights were trained with.

    Args:
        channels: Channels ``C`` that go through the operator.
        kernel_size: Nominal length ``M`` of the strips, at least ``small_kernel``.
        small_kernel: Side ``k`` of the small filters, odd.
        num_edges: Independent layouts ``E`` that are summed.

    Returns:
        The tables; the same object whenever the arguments are equal.

    Raises:
        ValueError: If an argument is no positive integer, or out of its range.
    """
    channels = positive_integer('channels', channels)
    kernel_size = positive_integer('kernel_size', kernel_size)
    small_kernel = positive_integer('small_kernel', small_kernel)
    num_edges = positive_integer('num_edges', num_edges)
    if small_kernel % 2 == 0:
        raise ValueError(f'small_kernel must be odd, so that filters have a centre; got {small_kernel}')
    if kernel_size < small_kernel:
        raise ValueError(f'kernel_size must be at least small_kernel ({small_kernel}); got {kernel_size}')
    return _generate(channels, kernel_size, small_kernel, num_edges)


@cache
def _generate(channels: int, kernel_size: int, small_kernel: int, num_edges: int) -> ShiftTables:
    num_shifts = -(-kernel_size // small_kernel)
    permutation_words = num_edges * channels * (num_shifts - 1)
    words = _random_words(2 * permutation_words + num_edges * channels)
    horizontal, vertical, identity = np.split(words, [permutation_words, 2 * permutation_words])
    return ShiftTables(
        channels,
        kernel_size,
        small_kernel,
        num_edges,
        horizontal=_channel_first(_permutations(horizontal.reshape(num_edges, channels, num_shifts - 1))),
        vertical=_channel_first(_permutations(vertical.reshape(num_edges, channels, num_shifts - 1))),
        identity=_channel_first((identity % num_shifts).reshape(num_edges, channels)),
    )


def channel_split(in_channels: int, ghost_ratio: float, even: bool) -> tuple[np.ndarray, np.ndarray]:
    """Choose the channels that go through the operator and those that bypass it.

    Args:
        in_channels: Channels of the feature map.
        ghost_ratio: Part of the channels that bypasses the operator, in ``[0, 1)``.
        even: Round the operator's channels down to an even count, as the UniRepLKNet-style networks do; otherwise round
            the bypassing channels down, as the SLaK-style networks do.

    Returns:
        Sorted int64 channel indices: those of the operator (``rep``) and the bypassing ones (``ghost``).

    Raises:
        ValueError: If an argument is out of its range, or no channel would be left for the operator.
    """
    return _split(positive_integer('in_channels', in_channels), number_in('ghost_ratio', ghost_ratio, 0, 1), bool(even))


@cache
def _split(in_channels: int, ghost_ratio: float, even: bool) -> tuple[np.ndarray, np.ndarray]:
    num_ghosts = in_channels - int(in_channels * (1 - ghost_ratio)) // 2 * 2 if even else int(in_channels * ghost_ratio)
    if num_ghosts == in_channels:
        raise ValueError(
            f'in_channels={in_channels} with ghost_ratio={ghost_ratio} leaves no channel for the operator; '
            'use more channels or a smaller ghost_ratio'
        )
    ghost = np.sort(np.random.RandomState(_SEED).choice(in_channels, num_ghosts, replace=False))
    rep = np.setdiff1d(np.arange(in_channels), ghost)
    return _frozen(rep), _frozen(ghost)


def _random_words(count: int) -> np.ndarray:
    """Draw raw 32-bit outputs of the generator, as int64 so that later arithmetic cannot wrap."""
    return np.frombuffer(np.random.RandomState(_SEED).bytes(4 * count), dtype='<u4').astype(np.int64)


def _permutations(words: np.ndarray) -> np.ndarray:
    """Shuffle ``0 .. n-1`` once per row of ``n - 1`` words, in the way ``torch.randperm`` does on the CPU."""
    *rows, swaps = words.shape
    result = np.tile(np.arange(swaps + 1), (*rows, 1))
    for i in range(swaps):
        partner = i + words[..., i : i + 1] % (swaps + 1 - i)
        taken = np.take_along_axis(result, partner, axis=-1)
        np.put_along_axis(result, partner, result[..., i : i + 1], axis=-1)
        result[..., i : i + 1] = taken
    return result


def _channel_first(table: np.ndarray) -> np.ndarray:
    return _frozen(np.ascontiguousarray(table.swapaxes(0, 1)))


def _frozen(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.int64)
    array.setflags(write=False)
    return array
