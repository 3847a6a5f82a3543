"""Tables of how to cut the Triton kernels up, where more is known than the rules of their plans.

A plan cuts its work into programs by rules: channels and pixels of a program, warps, registers. A table replaces those
numbers for some kernels, found by shape and dtype; what it leaves out stays with the rules. Tables never change a
result. Each sum is added up by one thread in an order that the numbers of a `Config` have no part in, and the numbers
that have one stay with the rules, which know nothing of the GPU: how a batch is split for the gradients of the kernels,
and how many rows a program of the deployed shift-wise convolution writes.

On a CUDA device a kernel is searched for in two tables, and the first that has it counts:

1. the user's own, written on that device by ``python -m benchmarks.tune``: the file that ``SW_MM_TUNED`` names, else
   ``sw_mm/tuned/<name of the device>.csv`` in ``$XDG_CACHE_HOME`` or ``~/.cache``;
2. the shipped one for its architecture, ``tuned/sm_90.csv`` beside this module. Its head says where it comes from.

They are read when a device is first used. No other device has tables, and nothing has under Triton's interpreter.

Imported by the Triton backend only.
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ._cache import cache_folder
from ._triton import DTYPES, INTERPRETED

VARIABLE = 'SW_MM_TUNED'
KERNELS = ('forward', 'input_grad', 'weight_grad', 'shift_maps', 'shift_sum', 'shift_input_grad')
SHIPPED = Path(__file__).with_name('tuned')
_DTYPES = {str(dtype).removeprefix('torch.'): dtype for dtype in DTYPES}

_Pair = tuple[int, int]


class Key(NamedTuple):
    """What a table is searched for; sizes are heights and widths.

    Attributes:
        kernel: One of `KERNELS`.
        channels: Channels of the map.
        size: Size of the map that the layer takes.
        kernel_size: Taps, cropped to the map; of a shift-wise convolution those of its horizontal strip.
        stride: Stride of the convolution.
        dilation: Distance of neighbouring taps.
        dtype: That of the map.
    """

    kernel: str
    channels: int
    size: _Pair
    kernel_size: _Pair
    stride: _Pair
    dilation: _Pair
    dtype: torch.dtype


@dataclass(frozen=True)
class Config:
    """Numbers to use instead of a plan's own; None leaves one to the plan's rule.

    Attributes:
        block: Channels of a program.
        tile: Longest tile: neighbouring positions of a line, or taps of a kernel's row, that a program writes.
        column_tile: The same for the columns of ``shift_maps``, whose rows take ``tile``.
        warps: Warps of a program.
        registers: Most registers of a thread; 255 is as good as no limit.

    Raises:
        ValueError: If no kernel can be compiled so.
    """

    block: int | None = None
    tile: int | None = None
    column_tile: int | None = None
    warps: int | None = None
    registers: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            'block': [32, 64, 128, 256],
            'tile': range(1, 65),
            'column_tile': range(1, 65),
            'warps': [1, 2, 4, 8],
            'registers': range(32, 256),
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                among = f'from {values[0]} to {values[-1]}' if isinstance(values, range) else f'one of {values}'
                raise ValueError(f'{name} must be {among}; got {value}')
        if self.block and self.warps and 32 * self.warps > self.block:
            raise ValueError(
                f'warps must leave no thread without a channel: {self.warps} x 32 threads pass {self.block}'
            )


Table = Mapping[Key, Config]
_RULES = Config()
# A context variable, not a global: other threads and tasks keep their tables.
_chosen: ContextVar[Table | None] = ContextVar('sw_mm_kernels_tuned', default=None)


@contextmanager
def use_table(table: Table) -> Iterator[None]:
    """Plan with one table inside a ``with`` block, whatever the device; an empty one leaves all to the rules."""
    token = _chosen.set(table)
    try:
        yield
    finally:
        _chosen.reset(token)


def find(
    kernel: str,
    source: Tensor,
    size: _Pair,
    kernel_size: _Pair,
    stride: _Pair = (1, 1),
    dilation: _Pair = (1, 1),
) -> tuple[Key, Config]:
    """Find what is known of a kernel on the device of what it reads; the other arguments are those of `Key`."""
    key = Key(kernel, source.shape[1], tuple(size), tuple(kernel_size), stride, dilation, source.dtype)
    table = _chosen.get()
    return key, (of_device(source.device) if table is None else table).get(key, _RULES)


@cache
def shipped(architecture: str) -> Table:
    """Read the table shipped for an architecture such as ``sm_90``; empty if there is none."""
    path = SHIPPED / f'{architecture}.csv'
    return read(path) if path.exists() else {}


def own_path(device_name: str) -> Path:
    """Say where the user's own table for a device is kept."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    return cache_folder('tuned') / f'{re.sub("[^A-Za-z0-9]+", "-", device_name)}.csv'


def read(path: Path) -> dict[Key, Config]:
    """Read a table: lines ``# ...`` that say where it comes from, then CSV; further columns are not looked at.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, or an entry is malformed or cannot be compiled.
    """
    if not path.exists():
        raise FileNotFoundError(
            f'there is no table {path}, which {VARIABLE} names; write it by `python -m benchmarks.tune --out {path}` '
            'or unset the variable'
        )
    with path.open(newline='') as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
    table: dict[Key, Config] = {}
    for row in rows:
        try:
            key, config = _entry(row)
            if key in table:
                raise ValueError('another row has the same key')
        except ValueError as error:
            name = ' '.join(str(row.get(column)) for column in Key._fields)
            raise ValueError(
                f'{path}, entry {name}: {error}; correct or delete the entry, or write the table anew by '
                '`python -m benchmarks.tune`'
            ) from error
        table[key] = config
    return table


def cells(key: Key, config: Config) -> dict[str, object]:
    """Write an entry as `read` takes it, by column."""
    texts = {name: 'x'.join(map(str, value)) for name, value in key._asdict().items() if isinstance(value, tuple)}
    numbers = {name: '' if value is None else value for name, value in asdict(config).items()}
    return {**key._asdict(), **texts, 'dtype': str(key.dtype).removeprefix('torch.'), **numbers}


def _entry(cells: Mapping[str, str | None]) -> tuple[Key, Config]:
    for name in (*Key._fields, *(field.name for field in fields(Config))):
        if cells.get(name) is None:
            raise ValueError(f'{name} is missing')
    if cells['kernel'] not in KERNELS:
        raise ValueError(f'kernel must be one of {KERNELS}; got {cells["kernel"]!r}')
    if cells['dtype'] not in _DTYPES:
        raise ValueError(f'dtype must be one of {tuple(_DTYPES)}; got {cells["dtype"]!r}')
    pairs = [_pair(name, cells[name]) for name in ('size', 'kernel_size', 'stride', 'dilation')]
    config = Config(
        **{field.name: _number(field.name, cells[field.name]) for field in fields(Config) if cells[field.name]}
    )
    if config.column_tile and cells['kernel'] != 'shift_maps':
        raise ValueError('column_tile is for shift_maps only; leave it empty')
    return Key(cells['kernel'], _number('channels', cells['channels']), *pairs, _DTYPES[cells['dtype']]), config


def _pair(name: str, text: str) -> _Pair:
    found = re.fullmatch(r'(\d+)x(\d+)', text)
    if not found:
        raise ValueError(f'{name} must be height and width, as 14x14; got {text!r}')
    return int(found[1]), int(found[2])


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f'{name} must be a whole number; got {text!r}')
    return int(text)


@cache
def of_device(device: torch.device) -> Table:
    """Give the table of a device, read at its first use; empty for all that is no GPU, and for the interpreter."""
    if device.type != 'cuda' or INTERPRETED:
        return {}
    own = own_path(torch.cuda.get_device_name(device))
    table = read(own) if own.exists() or os.environ.get(VARIABLE) else {}
    return {**shipped(architecture(device)), **table}


def architecture(device: torch.device) -> str:
    """Name the architecture of a device: ``sm_90``, or ``gfx942`` of AMD."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.split(':')[0]
    return f'sm_{properties.major}{properties.minor}'
