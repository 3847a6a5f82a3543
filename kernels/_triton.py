"""What the Triton kernels share: a launch as plain data, the geometry of an axis, and the inner loops.

All kernels work on channels_last maps and walk along *lines*: the rows of a map, or its columns where the kernel is
longer in that direction. A thread owns one channel, or a few, so a convolution needs no communication: a line of pixels
and a line of sums live in registers, and the taps along the line are unrolled. Sums are fp32.

A map of a fixed size is compiled for that size: which tap meets which pixel is then known, taps that would meet padding
are left out, and the loops hold nothing but loads and multiply-adds. Otherwise the sizes are arguments, and pixels
outside the map are loaded as zeros under a mask.

Imported by the Triton backend only, since it needs Triton.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor
from triton import language as tl

if TYPE_CHECKING:
    from ._tuned import Key

_OLDEST = (3, 4)
_TYPES = {torch.float32: '*fp32', torch.float16: '*fp16', torch.bfloat16: '*bf16'}
DTYPES = tuple(_TYPES)

if tuple(int(part) for part in triton.__version__.split('.')[:2]) < _OLDEST:
    raise ImportError(
        f'the Triton kernels need Triton {_OLDEST[0]}.{_OLDEST[1]} or newer, which comes with PyTorch 2.8; '
        f'this is Triton {triton.__version__}'
    )

INTERPRETED = triton.knobs.runtime.interpret


@dataclass(frozen=True)
class Launch:
    """A kernel with all that its launch needs; tensors on the meta device do for compiling.

    Attributes:
        kernel: Function decorated with ``triton.jit``.
        grid: Programs of the launch.
        arguments: Tensors, integers and None by parameter name, results included.
        constants: Compile-time constants by parameter name.
        num_warps: Warps of a program.
        max_registers: Most registers of a thread, or None to leave the number to the compiler.
        key: What tables of configurations call it.
    """

    kernel: triton.runtime.KernelInterface
    grid: tuple[int]
    arguments: Mapping[str, Tensor | int | None]
    constants: Mapping[str, object]
    num_warps: int
    max_registers: int | None = None
    key: 'Key | None' = None

    @property
    def options(self) -> dict[str, int | None]:
        """Options of the compiler."""
        return {'num_warps': self.num_warps, 'num_stages': 1, 'maxnreg': self.max_registers}

    def run(self) -> None:
        """Launch the kernel on the device of its tensors; an empty grid does nothing."""
        if 0 in self.grid:
            return
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        with torch.cuda.device(device) if device.type == 'cuda' else nullcontext():
            self.kernel[self.grid](**self.arguments, **self.constants, **self.options)

    def signature(self) -> dict[str, str]:
        """Type of every parameter in order, as ``triton.compiler.ASTSource`` takes it."""
        return {name: self._type(name) for name in self.kernel.arg_names}

    def constexprs(self) -> dict[str, object]:
        """Compile-time constants as ``ASTSource`` takes them: arguments that are None are constants too."""
        missing = {name: None for name, value in self.arguments.items() if value is None}
        return {**self.constants, **missing}

    def attributes(self) -> dict[tuple[int], list[list]]:
        """Arguments known to be multiples of 16, as ``ASTSource`` takes them: the tensors' addresses."""
        return {
            (index,): [['tt.divisibility', 16]]
            for index, name in enumerate(self.kernel.arg_names)
            if isinstance(self.arguments.get(name), Tensor)
        }

    def _type(self, name: str) -> str:
        value = self.arguments.get(name)
        if isinstance(value, Tensor):
            return _TYPES[value.dtype]
        return 'constexpr' if value is None else 'i32'


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution or, ``transposed``, of its gradient with respect to the input.

    At tap ``t``, position ``o`` of the convolution's output meets position ``o * stride - pad + t * dilation`` of its
    input. A kernel reads one of the two and writes the other.

    Attributes:
        taps: Taps of the convolution.
        stride: Stride of the convolution.
        dilation: Distance of neighbouring taps.
        pad: Zeros before the input; a negative number cuts.
        transposed: Read the output's gradient and write the input's.
        source: Size of what is read; 0 where it is known at run time only.
        size: Size of what is written; 0 where it is known at run time only.
        tile: Neighbouring positions that one program writes.
    """

    taps: int
    stride: int
    dilation: int
    pad: int
    transposed: bool
    source: int = 0
    size: int = 0
    tile: int = 1

    def tiled(self, size: int, longest: int, fixed: bool) -> 'Axis':
        """Cut the given size into tiles as :func:`tile_length` says, multiples of the stride where that matters."""
        return replace(self, tile=tile_length(size, longest, fixed, self.stride if self.transposed else 1))

    def meets(self, position: int, tap: int) -> bool:
        """Tell whether a written position meets any position that is read at a tap."""
        return not self.transposed or (position + self.pad - tap * self.dilation) % self.stride == 0

    def met(self, position: int, tap: int) -> int:
        """Position, read, that a written position meets at a tap."""
        if self.transposed:
            return (position + self.pad - tap * self.dilation) // self.stride
        return position * self.stride - self.pad + tap * self.dilation

    @property
    def first(self) -> int:
        """First source position that a tile at 0 reads; its halo included."""
        return self.met(0, self.taps - 1) if self.transposed else self.met(0, 0)

    @property
    def span(self) -> int:
        """Source positions from the first to the last one that a tile reads."""
        last = self.met(self.tile - 1, 0) if self.transposed else self.met(self.tile - 1, self.taps - 1)
        return last - self.first + 1

    @property
    def advance(self) -> int:
        """Source positions from one tile to the next."""
        return self.tile // self.stride if self.transposed else self.tile * self.stride

    @property
    def step(self) -> int:
        """Distance of the taps at which one position of a transposed axis meets a source position."""
        return self.stride // gcd(self.stride, self.dilation)

    @property
    def inverse(self) -> int:
        """Factor that turns a position into its first tap, modulo the step."""
        return pow(self.dilation // gcd(self.stride, self.dilation), -1, self.step)


def tile_length(size: int, longest: int, fixed: bool, unit: int = 1) -> int:
    """Choose the length of tiles, a multiple of ``unit`` and at most ``longest`` if that can be.

    For a fixed size the tiles are of equal length. Else there are four lengths to choose from, so that maps of all
    sizes share a few compiled kernels. A short tile spends more on its halo: four instructions a pixel and kernel row,
    one less pixel than there are taps, which is the arithmetic of four more pixels.
    """
    longest = max(longest // unit, 1)
    size = -(-size // unit)
    if fixed:
        tiles = max(-(-size // longest), 1)
        return max(-(-size // tiles), 1) * unit
    lengths = [-(-longest * quarter // 4) for quarter in (4, 3, 2, 1)]
    return min(lengths, key=lambda length: -(-size // length) * (length * unit + 4)) * unit


def channel_block(channels: int) -> int:
    """Choose how many channels a program handles: the most of 32, 64 and 128 that idle hardly more threads than 32."""
    padded = {size: -(-channels // size) * size for size in (128, 64, 32)}
    return next(size for size in padded if padded[size] <= 1.1 * padded[32])


def warps(block: int, tile: int) -> int:
    """Choose the warps of a program: a thread owns up to four channels while its sums are few.

    Static counts on sm_90, fp32: for a 13 x 13 kernel on 7 x 7 pixels, one channel a thread gives 58 % FMAs in the hot
    loop, two give 74 %; on 14 x 14 pixels 77 % and 87 %.
    """
    channels_per_thread = 4 if tile <= 7 else 2 if tile <= 14 else 1
    return max(block // 32 // channels_per_thread, 1)


def max_registers(source: Tensor, line: Axis) -> int | None:
    """Limit the registers of a thread where the compiler would load too many pixels ahead.

    With long lines in 16 bits it takes 168 and more, against 128 at most elsewhere; 128 do, without spilling. Elsewhere
    a limit does harm, for it is taken as a goal.
    """
    return 128 if source.dtype.itemsize < 4 and (line.span > 64 or not line.source) else None


@triton.jit
def block_of_channels(block, C: tl.constexpr, BLOCK: tl.constexpr):
    """Channels of a block and the mask to store them under.

    Surplus threads repeat the last channels so that loads need no mask: each masked load costs an instruction more, to
    clear its register.
    """
    channel = block * BLOCK + tl.arange(0, BLOCK)
    mask = channel < C
    if C % BLOCK:
        # Neighbours stay neighbours, and the compiler is told so: a thread loads several channels at once.
        NEIGHBOURS: tl.constexpr = 4 if C % 4 == 0 else 2 if C % 2 == 0 else 1
        channel = tl.minimum(channel, C - NEIGHBOURS + channel % NEIGHBOURS)
        channel = tl.max_contiguous(tl.multiple_of(channel, NEIGHBOURS), NEIGHBOURS)
    return channel, mask


@triton.jit
def line_and_pixel(lines, size, C: tl.constexpr, COLUMNS: tl.constexpr):
    """Distance of neighbouring lines, and of neighbouring pixels of a line, in elements of a channels_last map."""
    if COLUMNS:
        return C, lines * C
    else:
        return size * C, C


@triton.jit
def met(position, tap, AXIS: tl.constexpr):
    """Do at run time what :meth:`Axis.met` does while compiling."""
    if AXIS.transposed:
        return (position + AXIS.pad - tap * AXIS.dilation) // AXIS.stride
    else:
        return position * AXIS.stride - AXIS.pad + tap * AXIS.dilation


@triton.jit
def tap_range(line, lines, taps, AXIS: tl.constexpr):
    """First and one past the last tap at which an output line may meet one of the source lines, across the lines."""
    if AXIS.transposed:
        at = line + AXIS.pad
        first = (tl.maximum(at - (lines - 1) * AXIS.stride, 0) + AXIS.dilation - 1) // AXIS.dilation
        stop = tl.minimum(tl.maximum(at + AXIS.dilation, 0) // AXIS.dilation, taps)
        if AXIS.stride > 1:
            # Only taps with (at - tap * dilation) divisible by the stride: every step-th one, or none.
            common = AXIS.stride // AXIS.step
            at = tl.maximum(at, 0)
            tap = at // common * AXIS.inverse % AXIS.step
            first += (tap - first % AXIS.step + AXIS.step) % AXIS.step
            stop = tl.where(at % common == 0, stop, 0)
    else:
        at = line * AXIS.stride - AXIS.pad
        first = (tl.maximum(-at, 0) + AXIS.dilation - 1) // AXIS.dilation
        stop = tl.minimum(tl.maximum(lines - at + AXIS.dilation - 1, 0) // AXIS.dilation, taps)
    return first, stop


@triton.jit
def start_sums(bias, channel, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """What the sums of a tile start from: zero, or the bias."""
    start = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        start += tl.load(bias + channel).to(tl.float32)
    sums = ()
    for _ in tl.static_range(TILE):
        sums += (start,)
    return sums


@triton.jit
def load_line(origin, pixel, at, size, FIRST: tl.constexpr, SPAN: tl.constexpr, FIXED: tl.constexpr):
    """Load neighbouring pixels of a line as fp32: ``SPAN`` from ``FIRST`` after ``origin``, which is pixel ``at``.

    Pixels outside the line are zero; where the size is fixed they must not be used.
    """
    pixels = ()
    for j in tl.static_range(SPAN):
        if not FIXED:
            inside = (at + FIRST + j >= 0) & (at + FIRST + j < size)
            pixels += (tl.load(origin + (FIRST + j) * pixel, mask=inside, other=0.0).to(tl.float32),)
        elif at + FIRST + j >= 0 and at + FIRST + j < size:
            pixels += (tl.load(origin + (FIRST + j) * pixel).to(tl.float32),)
        else:
            pixels += (0.0,)
    return pixels


@triton.jit
def slide(
    sums,
    pixels,
    taps,
    tap_pixel,
    valid,
    at,
    size,
    FIRST: tl.constexpr,
    AXIS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Slide a row of taps, of which the ``valid`` ones count, over pixels from :func:`load_line`; add to the sums."""
    TAPS: tl.constexpr = AXIS.taps
    TILE: tl.constexpr = AXIS.tile
    for tap in tl.static_range(TAPS):
        if valid is None:
            weight = tl.load(taps + tap * tap_pixel).to(tl.float32)
        else:
            weight = tl.load(taps + tap * tap_pixel, mask=tap < valid, other=0.0).to(tl.float32)
        added = ()
        for i in tl.static_range(TILE):
            if AXIS.meets(i, tap) and (not FIXED or (at + AXIS.met(i, tap) >= 0 and at + AXIS.met(i, tap) < size)):
                added += (tl.fma(weight, pixels[AXIS.met(i, tap) - FIRST], sums[i]),)
            else:
                added += (sums[i],)
        sums = added
    return sums


@triton.jit
def store_line(out, pixel, sums, start, size, mask, TILE: tl.constexpr, FIXED: tl.constexpr):
    """Store the sums of a tile that begins at ``start``, up to the end of the line."""
    for i in tl.static_range(TILE):
        if not FIXED:
            tl.store(out + (start + i) * pixel, sums[i].to(out.dtype.element_ty), mask=mask & (start + i < size))
        elif start + i < size:
            tl.store(out + (start + i) * pixel, sums[i].to(out.dtype.element_ty), mask=mask)


@triton.jit
def convolve(
    sums,
    source,
    taps,
    line,
    first,
    stop,
    at,
    source_size,
    source_lines,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Add what some lines of a kernel give to the sums of a tile; ``source`` is an image, ``taps`` the whole kernel."""
    FIRST: tl.constexpr = LINE.first
    SPAN: tl.constexpr = LINE.span
    line_stride, pixel = line_and_pixel(source_lines, source_size, C, COLUMNS)
    for tap in range(first, stop, CROSS.step if CROSS.transposed else 1):
        origin = source + met(line, tap, CROSS) * line_stride + at * pixel
        pixels = load_line(origin, pixel, at, source_size, FIRST, SPAN, FIXED)
        sums = slide(sums, pixels, taps + tap * (LINE.taps * C), C, None, at, source_size, FIRST, LINE, FIXED)
    return sums
