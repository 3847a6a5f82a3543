"""Connection tables and channel split against the values that the official code makes."""

import copy
import hashlib
import pickle
import random

import numpy as np
import pytest
import torch

from sw_mm.kernels import channel_split, shift_tables
from sw_mm.kernels.shift_conv2d import tables as module

# Input channels and strip length of the four stages of the released SW-T, then sha1 of the official arrays.
STAGES = [
    (80, 51, '49b8c3c930c846b4', '531e0d0aae4681aa', '4cbfb54b681f55c7'),
    (160, 49, '48239431ef1ec6e5', '028bcdd4fce0f77a', '6b9961df87ddadd4'),
    (320, 47, '806b840663108ef4', 'ae8c9cc46b435f3f', '487c9bb527222146'),
    (640, 13, '7c1731080a8d86df', 'df40f9a60961a637', 'd38f7d0bd3d523ea'),
]
FIRST_ROWS = [
    ([14, -13, 5, 5, -19, -19, 11, 17], [0, 12, 4, 13]),
    ([13, 7, 13, -5, -11, 19, -8, 19], [10, 11, 14, 15]),
    ([12, 21, -24, 18, 0, 9, -6, -9], [3, 4, 3, 2]),
    ([1, -2, -8, -8, -8, -5, -2, -5], [0, 3, 1, 0]),
]


def digest(array: np.ndarray) -> str:
    return hashlib.sha1(np.ascontiguousarray(array, dtype=np.int32).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(('in_channels', 'kernel_size', 'pad_hv', 'identity', 'ghost'), STAGES)
def test_released_tables_are_reproduced(in_channels, kernel_size, pad_hv, identity, ghost):
    rep_channels, ghost_channels = channel_split(in_channels, 0.23, even=True)
    layout = shift_tables(len(rep_channels), kernel_size, 3, 4).official_layout()
    assert digest(layout['pad_hv']) == pad_hv
    assert digest(layout['idx_identit']) == identity
    assert digest(ghost_channels) == ghost
    assert {array.dtype for array in layout.values()} == {np.dtype(np.int32)}


@pytest.mark.parametrize(('stage', 'row'), list(zip(STAGES, FIRST_ROWS, strict=True)))
def test_first_rows_of_the_released_tables(stage, row):
    rep, _ = channel_split(stage[0], 0.23, even=True)
    tables = shift_tables(len(rep), stage[1], 3, 4)
    layout = tables.official_layout()
    assert layout['pad_hv'][0].tolist() == row[0]
    assert layout['idx_identit'][0].tolist() == row[1]
    assert layout['idx_out'].tolist() == np.repeat(np.arange(len(rep)), tables.num_shifts).tolist()


def test_tables_equal_torchs_own_permutations():
    """The official code draws with ``torch.randperm`` and ``torch.randint`` after ``torch.manual_seed(123)``."""
    channels, num_edges, num_shifts = 6, 3, 5
    with torch.random.fork_rng():
        torch.manual_seed(123)
        strips = [
            torch.stack([torch.stack([torch.randperm(num_shifts) for _ in range(channels)]) for _ in range(num_edges)])
            for _ in range(2)
        ]
        identity = torch.stack([torch.randint(num_shifts, (channels,)) for _ in range(num_edges)])
    tables = shift_tables(channels, 13, 3, num_edges)
    assert tables.horizontal.tolist() == strips[0].transpose(0, 1).tolist()
    assert tables.vertical.tolist() == strips[1].transpose(0, 1).tolist()
    assert tables.identity.tolist() == identity.T.tolist()


@pytest.mark.parametrize(
    ('kernel_size', 'shifts', 'padding'),
    [
        (51, list(range(23, -26, -3)), (25, 25)),
        (49, list(range(22, -27, -3)), (24, 26)),
        (47, list(range(21, -25, -3)), (23, 24)),
        (13, [4, 1, -2, -5, -8], (6, 8)),
        (3, [-1], (1, 1)),
    ],
)
def test_geometry(kernel_size, shifts, padding):
    tables = shift_tables(2, kernel_size, 3, 1)
    assert tables.shifts.tolist() == shifts
    assert tables.num_shifts == len(shifts)
    assert tables.strip_length == 3 * len(shifts) == sum(padding) + 1
    assert tables.strip_padding == padding


def test_connection_matrix_counts_every_edge():
    tables = shift_tables(7, 11, 3, 4)
    matrix = tables.connection_matrix()
    for channel in range(7):
        for slot in range(4):
            for strip, table in ((0, tables.horizontal), (4, tables.vertical)):
                expected = np.bincount(table[channel, :, slot], minlength=4)
                assert matrix[channel, strip + slot].tolist() == expected.tolist()
        assert matrix[channel, 8].tolist() == np.bincount(tables.identity[channel], minlength=4).tolist()


@pytest.mark.parametrize(
    ('in_channels', 'rep', 'ghost'),
    [
        (80, 60, 20),
        (96, 72, 24),
        (128, 98, 30),
        (160, 122, 38),
        (192, 146, 46),
        (256, 196, 60),
        (320, 246, 74),
        (384, 294, 90),
        (512, 394, 118),
        (640, 492, 148),
        (768, 590, 178),
        (1024, 788, 236),
        (1536, 1182, 354),
    ],
)
def test_channel_counts_of_v2(in_channels, rep, ghost):
    assert [len(part) for part in channel_split(in_channels, 0.23, even=True)] == [rep, ghost]


@pytest.mark.parametrize(
    ('in_channels', 'rep', 'ghost'), [(96, 74, 22), (128, 99, 29), (192, 148, 44), (384, 296, 88), (768, 592, 176)]
)
def test_channel_counts_of_v1(in_channels, rep, ghost):
    assert [len(part) for part in channel_split(in_channels, 0.23, even=False)] == [rep, ghost]


@pytest.mark.parametrize('even', [True, False])
def test_split_is_a_sorted_partition(even):
    rep, ghost = channel_split(50, 0.3, even)
    assert sorted([*rep, *ghost]) == list(range(50))
    assert rep.tolist() == sorted(rep)
    assert ghost.tolist() == sorted(ghost)


def test_no_ghost_channels():
    rep, ghost = channel_split(8, 0.0, even=True)
    assert rep.tolist() == list(range(8))
    assert len(ghost) == 0


def test_tables_are_shared_and_immutable():
    tables = shift_tables(4, 13, 3, 2)
    assert shift_tables(4, 13, 3, 2) is shift_tables(*map(np.int64, (4, 13, 3, 2))) is tables
    assert copy.deepcopy(tables) is tables
    assert pickle.loads(pickle.dumps(tables)) is tables
    for array in (tables.horizontal, tables.vertical, tables.identity, *channel_split(9, 0.3, True)):
        with pytest.raises(ValueError, match='read-only'):
            array[0] = 0
    with pytest.raises(AttributeError):
        tables.channels = 5


def test_global_generators_are_untouched():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    module._generate.__wrapped__(11, 13, 3, 4)
    module._split.__wrapped__(31, 0.23, True)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('channels', (0, 13, 3, 4)),
        ('channels', ('4', 13, 3, 4)),
        ('kernel_size', (4, 13.0, 3, 4)),
        ('kernel_size', (4, True, 1, 4)),
        ('kernel_size', (4, 3, 5, 4)),
        ('small_kernel', (4, 13, 4, 4)),
        ('small_kernel', (4, 13, -1, 4)),
        ('small_kernel', (4, 13, [3], 4)),
        ('num_edges', (4, 13, 3, 0)),
        ('num_edges', (4, 13, 3, None)),
    ],
)
def test_bad_geometry_is_named(name, arguments):
    with pytest.raises(ValueError, match=name):
        shift_tables(*arguments)


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('in_channels', (0, 0.2, True)),
        ('in_channels', ([8], 0.2, True)),
        ('ghost_ratio', (8, 1.0, True)),
        ('ghost_ratio', (8, -0.1, False)),
        ('ghost_ratio', (8, '0.2', False)),
        ('ghost_ratio', (8, [], False)),
        ('ghost_ratio', (8, float('nan'), False)),
    ],
)
def test_bad_split_is_named(name, arguments):
    with pytest.raises(ValueError, match=name):
        channel_split(*arguments)


def test_split_without_rep_channels_is_refused():
    with pytest.raises(ValueError, match='leaves no channel'):
        channel_split(2, 0.9, True)
