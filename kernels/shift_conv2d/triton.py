"""The shift-wise convolution and its gradients in Triton.

Training form, :func:`maps`: one launch reads the map and writes three. Lines of the horizontal strip are rows, and the
centred kernel slides over the same pixels while they are in registers. Lines of the vertical strip are columns. In both
directions a strip then loads each pixel ``small_kernel`` times, where a vertical strip that walked along rows would
load it once for every tap, about 50 times. Programs of the two directions cannot share registers; they are neighbours
in the launch, image by image, so that the map is read from memory once, and from the cache by whoever comes later.

Deploy form, :func:`folded`, and gradient with respect to the input, :func:`input_grad`: one launch, one result. All
branches must meet in one program's sums, so the vertical strip walks along rows here. To load less, a program writes
several neighbouring rows, and a row of pixels serves all of them.

The gradients of the kernels are those of three depthwise convolutions.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import triton
from torch import Tensor
from triton import language as tl

from .._triton import (
    Axis,
    Launch,
    block_of_channels,
    channel_block,
    convolve,
    load_line,
    max_registers,
    met,
    slide,
    start_sums,
    store_line,
    tap_range,
    warps,
)
from .._tuned import Config, Key, find
from ..depthwise_conv2d import triton as depthwise
from ..depthwise_conv2d.geometry import Sides, memory_format_of
from ..depthwise_conv2d.triton import conv_tile, is_fixed, tap_rows

# Positions of a line whose sums one thread holds in registers, those of two maps at once if the line is longer, and the
# sums of all rows of a program.
_LONGEST_TILE = 28
_LONGEST_PAIR_TILE = 20
_MOST_SUMS = 56
_MOST_ROWS = 4


@triton.jit(noinline=True)
def row_tile(
    x,
    strip,
    centre,
    out,
    centred,
    block,
    image,
    line,
    start,
    width,
    height,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    STRIP: tl.constexpr,
    CENTRE: tl.constexpr,
    CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Convolve a tile of a row with the horizontal strip and with the centred kernel."""
    TILE: tl.constexpr = STRIP.tile
    FIRST: tl.constexpr = STRIP.first
    SPAN: tl.constexpr = STRIP.span
    channel, mask = block_of_channels(block, C, BLOCK)
    x += image * height * width * C + channel
    sums = start_sums(None, channel, BLOCK, TILE)
    centred_sums = sums
    first, stop = tap_range(line, height, CROSS.taps, CROSS)
    for tap in range(first, stop):
        origin = x + met(line, tap, CROSS) * (width * C) + start * C
        pixels = load_line(origin, C, start, width, FIRST, SPAN, FIXED)
        taps = strip + tap * (STRIP.taps * C) + channel
        sums = slide(sums, pixels, taps, C, None, start, width, FIRST, STRIP, FIXED)
        taps = centre + tap * (CENTRE.taps * C) + channel
        centred_sums = slide(centred_sums, pixels, taps, C, None, start, width, FIRST, CENTRE, FIXED)
    offset = (image * height + line) * width * C + channel
    store_line(out + offset, C, sums, start, width, mask, TILE, FIXED)
    store_line(centred + offset, C, centred_sums, start, width, mask, TILE, FIXED)


@triton.jit(do_not_specialize=['height', 'width'])
def shift_maps(
    x,
    horizontal,
    vertical,
    centre,
    out_horizontal,
    out_vertical,
    out_centre,
    height,
    width,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    STRIP: tl.constexpr,
    STRIP_CROSS: tl.constexpr,
    CENTRE: tl.constexpr,
    COLUMN: tl.constexpr,
    COLUMN_CROSS: tl.constexpr,
):
    """The three maps: one program is a tile of a row of two of them, or of a column of the third."""
    BLOCKS: tl.constexpr = (C + BLOCK - 1) // BLOCK
    FIXED: tl.constexpr = STRIP.size > 0
    ROW_TILES: tl.constexpr = (STRIP.size + STRIP.tile - 1) // STRIP.tile
    COLUMN_TILES: tl.constexpr = (COLUMN.size + COLUMN.tile - 1) // COLUMN.tile
    program = tl.program_id(0)
    block = program % BLOCKS
    if FIXED:
        row_programs = COLUMN.size * ROW_TILES
        programs = row_programs + STRIP.size * COLUMN_TILES
    else:
        row_programs = height * ((width + STRIP.tile - 1) // STRIP.tile)
        programs = row_programs + width * ((height + COLUMN.tile - 1) // COLUMN.tile)
    image = (program // BLOCKS // programs).to(tl.int64)
    program = program // BLOCKS % programs
    along_row = program < row_programs
    program = tl.where(along_row, program, program - row_programs)
    if FIXED:
        for i in tl.static_range(ROW_TILES):
            if along_row & (program % ROW_TILES == i):
                row_tile(
                    x, horizontal, centre, out_horizontal, out_centre, block, image,
                    (program // ROW_TILES).to(tl.int64), i * STRIP.tile, STRIP.size, COLUMN.size,
                    C, BLOCK, STRIP, CENTRE, STRIP_CROSS, True,
                )  # fmt: skip
        for i in tl.static_range(COLUMN_TILES):
            if (not along_row) & (program % COLUMN_TILES == i):
                conv_tile(
                    x, vertical, None, out_vertical, block, image,
                    (program // COLUMN_TILES).to(tl.int64), i * COLUMN.tile, i * COLUMN.tile,
                    COLUMN.size, STRIP.size, COLUMN.size, STRIP.size, C, BLOCK, True, COLUMN, COLUMN_CROSS, True,
                )  # fmt: skip
    elif along_row:
        tiles = (width + STRIP.tile - 1) // STRIP.tile
        row_tile(
            x, horizontal, centre, out_horizontal, out_centre, block, image,
            (program // tiles).to(tl.int64), program % tiles * STRIP.tile, width, height,
            C, BLOCK, STRIP, CENTRE, STRIP_CROSS, False,
        )  # fmt: skip
    else:
        tiles = (height + COLUMN.tile - 1) // COLUMN.tile
        start = program % tiles * COLUMN.tile
        conv_tile(
            x, vertical, None, out_vertical, block, image,
            (program // tiles).to(tl.int64), start, start,
            height, width, height, width, C, BLOCK, True, COLUMN, COLUMN_CROSS, False,
        )  # fmt: skip


@triton.jit(noinline=True)
def sum_tile(
    source_horizontal,
    source_vertical,
    source_centre,
    horizontal,
    vertical,
    centre,
    bias,
    out,
    block,
    image,
    line,
    start,
    width,
    height,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIP_CROSS: tl.constexpr,
    CENTRE: tl.constexpr,
    VERTICAL: tl.constexpr,
    VERTICAL_CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Convolve a tile of some rows with all branches and add them up."""
    TILE: tl.constexpr = STRIP.tile
    FIRST: tl.constexpr = VERTICAL.first
    SPAN: tl.constexpr = VERTICAL.span
    channel, mask = block_of_channels(block, C, BLOCK)
    offset = image * height * width * C + channel
    source_horizontal += offset
    source_vertical += offset
    horizontal += channel
    vertical += channel

    # The loop over the rows is not unrolled, which would multiply the code: the sums move on, as in a queue.
    rows = ()
    for _ in tl.static_range(ROWS):
        rows += (start_sums(bias, channel, BLOCK, TILE),)
    # Taps of the vertical strip that all rows share, counted for the first row; each row after it is one tap ahead.
    shared = tl.zeros([], tl.int64)
    stop_shared = tl.full([], VERTICAL_CROSS.taps + ROWS, tl.int64)
    AHEAD: tl.constexpr = 1 if VERTICAL_CROSS.transposed else -1
    for row in range(ROWS):
        first, stop = tap_range(line + row, height, STRIP_CROSS.taps, STRIP_CROSS)
        sums = convolve(
            rows[0], source_horizontal, horizontal, line + row, first, stop, start, width, height,
            C, False, STRIP, STRIP_CROSS, FIXED,
        )  # fmt: skip
        if centre is not None:
            sums = convolve(
                sums, source_centre + offset, centre + channel, line + row, first, stop, start, width, height,
                C, False, CENTRE, STRIP_CROSS, FIXED,
            )  # fmt: skip
        rows = move_on(rows, sums, ROWS)
        first, stop = tap_range(line + row, height, VERTICAL_CROSS.taps, VERTICAL_CROSS)
        shared = tl.maximum(first - AHEAD * row, shared)
        stop_shared = tl.minimum(stop - AHEAD * row, stop_shared)
    stop_shared = tl.maximum(stop_shared, shared)

    for tap in range(shared, stop_shared):
        origin = source_vertical + met(line, tap, VERTICAL_CROSS) * (width * C) + start * C
        pixels = load_line(origin, C, start, width, FIRST, SPAN, FIXED)
        added = ()
        for r in tl.static_range(ROWS):
            taps = vertical + (tap + AHEAD * r) * (VERTICAL.taps * C)
            added += (slide(rows[r], pixels, taps, C, None, start, width, FIRST, VERTICAL, FIXED),)
        rows = added

    for row in range(ROWS):
        first, stop = tap_range(line + row, height, VERTICAL_CROSS.taps, VERTICAL_CROSS)
        sums = convolve(
            rows[0], source_vertical, vertical, line + row, first, tl.minimum(shared + AHEAD * row, stop), start, width,
            height, C, False, VERTICAL, VERTICAL_CROSS, FIXED,
        )  # fmt: skip
        sums = convolve(
            sums, source_vertical, vertical, line + row, stop_shared + AHEAD * row, stop, start, width, height,
            C, False, VERTICAL, VERTICAL_CROSS, FIXED,
        )  # fmt: skip
        store_line(
            out + offset + (line + row) * width * C, C, sums, start, width, mask & (line + row < height), TILE, FIXED
        )
        rows = move_on(rows, sums, ROWS)


@triton.jit
def move_on(rows, last, ROWS: tl.constexpr):
    """Drop the first row of sums and append another one."""
    moved = ()
    for r in tl.static_range(1, ROWS):
        moved += (rows[r],)
    return moved + (last,)


@triton.jit(do_not_specialize=['height', 'width'])
def shift_sum(
    source_horizontal,
    source_vertical,
    source_centre,
    horizontal,
    vertical,
    centre,
    bias,
    out,
    height,
    width,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    STRIP: tl.constexpr,
    STRIP_CROSS: tl.constexpr,
    CENTRE: tl.constexpr,
    VERTICAL: tl.constexpr,
    VERTICAL_CROSS: tl.constexpr,
):
    """Sum of the branches, each with its own source: one program is a tile of ``ROWS`` neighbouring rows."""
    BLOCKS: tl.constexpr = (C + BLOCK - 1) // BLOCK
    TILES: tl.constexpr = (STRIP.size + STRIP.tile - 1) // STRIP.tile
    program = tl.program_id(0)
    block = program % BLOCKS
    if TILES:
        GROUPS: tl.constexpr = (VERTICAL_CROSS.size + ROWS - 1) // ROWS
        line = (program // (BLOCKS * TILES) % GROUPS).to(tl.int64) * ROWS
        image = (program // (BLOCKS * TILES * GROUPS)).to(tl.int64)
        for i in tl.static_range(TILES):
            if program // BLOCKS % TILES == i:
                sum_tile(
                    source_horizontal, source_vertical, source_centre, horizontal, vertical, centre, bias, out,
                    block, image, line, i * STRIP.tile, STRIP.size, VERTICAL_CROSS.size,
                    C, BLOCK, ROWS, STRIP, STRIP_CROSS, CENTRE, VERTICAL, VERTICAL_CROSS, True,
                )  # fmt: skip
    else:
        tiles = (width + STRIP.tile - 1) // STRIP.tile
        groups = (height + ROWS - 1) // ROWS
        sum_tile(
            source_horizontal, source_vertical, source_centre, horizontal, vertical, centre, bias, out,
            block, (program // BLOCKS // tiles // groups).to(tl.int64),
            (program // BLOCKS // tiles % groups).to(tl.int64) * ROWS,
            program // BLOCKS % tiles * STRIP.tile, width, height,
            C, BLOCK, ROWS, STRIP, STRIP_CROSS, CENTRE, VERTICAL, VERTICAL_CROSS, False,
        )  # fmt: skip


def maps(x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> tuple[Tensor, Tensor, Tensor]:
    """Shift-wise convolution as it is trained: the horizontal, the vertical and the centred map.

    Args:
        x: Input ``(N, C, H, W)`` in fp32, fp16 or bf16; copied unless channels_last.
        kernels: Horizontal strip, vertical strip and centred kernel, ``(C, 1, kh, kw)`` each.
        paddings: For each of them zeros on the left, right, top and bottom, which keep the size of the map.

    Returns:
        Three maps of the shape, dtype and memory format of ``x``.
    """
    launch = plan_maps(x, kernels, paddings)
    launch.run()
    results = (launch.arguments[name] for name in ('out_horizontal', 'out_vertical', 'out_centre'))
    return tuple(result.contiguous(memory_format=memory_format_of(x)) for result in results)


def folded(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, paddings: Sequence[Sides]) -> Tensor:
    """Shift-wise convolution as it is deployed: the sum of the strips and the bias.

    Args:
        x: Input ``(N, C, H, W)`` in fp32, fp16 or bf16; copied unless channels_last.
        kernels: Horizontal and vertical strip, ``(C, 1, kh, kw)`` each.
        bias: ``(C,)`` or None.
        paddings: For each strip zeros on the left, right, top and bottom, which keep the size of the map.

    Returns:
        A map of the shape, dtype and memory format of ``x``.
    """
    launch = plan_folded(x, kernels, bias, paddings)
    launch.run()
    return launch.arguments['out'].contiguous(memory_format=memory_format_of(x))


def input_grad(grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> Tensor:
    """Gradient of :func:`maps` or :func:`folded` with respect to the input.

    Args:
        grads: Gradient of each branch; for :func:`folded` twice the same.
        kernels: As in the forward pass.
        paddings: As in the forward pass.

    Returns:
        The gradient in the dtype of ``grads`` and the memory format of the first; the branches are added in fp32.
    """
    launch = plan_input_grad(grads, kernels, paddings)
    launch.run()
    return launch.arguments['out'].contiguous(memory_format=memory_format_of(grads[0]))


def weight_grads(
    x: Tensor, grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]
) -> tuple[Tensor, ...]:
    """Gradients of :func:`maps` or :func:`folded` with respect to their kernels, in the shapes of these."""
    return tuple(
        depthwise.weight_grad(x, grad, tuple(kernel.shape[2:]), (1, 1), padding, (1, 1))
        for grad, kernel, padding in zip(grads, kernels, paddings, strict=True)
    )


def plan_maps(x: Tensor, kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> Launch:
    """Plan :func:`maps`; its results are the launch's arguments ``out_*``."""
    n, _, height, width = x.shape
    (strip_cross, strip), (column, column_cross), (_, centre) = _axes(kernels, paddings, (height, width), False)
    fixed = is_fixed((height, width))
    key, config = find('shift_maps', x, (height, width), kernels[0].shape[2:])
    longest = _LONGEST_TILE if width <= _LONGEST_TILE else _LONGEST_PAIR_TILE
    strip = strip.tiled(width, config.tile or longest, fixed)
    centre = replace(centre, tile=strip.tile)
    column = column.tiled(height, config.column_tile or _LONGEST_TILE, fixed)
    x = x.contiguous(memory_format=torch.channels_last)
    arguments = {
        'x': x,
        'horizontal': tap_rows(kernels[0], columns=False),
        'vertical': tap_rows(kernels[1], columns=True),
        'centre': tap_rows(kernels[2], columns=False),
        **{f'out_{name}': torch.empty_like(x) for name in ('horizontal', 'vertical', 'centre')},
        'height': height,
        'width': width,
    }
    constants = {
        'STRIP': strip, 'STRIP_CROSS': strip_cross, 'CENTRE': centre, 'COLUMN': column, 'COLUMN_CROSS': column_cross,
    }  # fmt: skip
    tiles = height * -(-width // strip.tile) + width * -(-height // column.tile)
    return _launch(shift_maps, n * tiles, arguments, constants, max(2 * strip.tile, column.tile), key, config)


def plan_folded(x: Tensor, kernels: Sequence[Tensor], bias: Tensor | None, paddings: Sequence[Sides]) -> Launch:
    """Plan :func:`folded`; the launch's argument ``out`` is the result."""
    return _plan_sum((x, x), kernels, bias, paddings, transposed=False)


def plan_input_grad(grads: Sequence[Tensor], kernels: Sequence[Tensor], paddings: Sequence[Sides]) -> Launch:
    """Plan :func:`input_grad`; the launch's argument ``out`` is the result."""
    return _plan_sum(grads, kernels, None, paddings, transposed=True)


def _plan_sum(
    sources: Sequence[Tensor],
    kernels: Sequence[Tensor],
    bias: Tensor | None,
    paddings: Sequence[Sides],
    transposed: bool,
) -> Launch:
    n, _, height, width = sources[0].shape
    (strip_cross, strip), (vertical_cross, vertical), *centre = _axes(kernels, paddings, (height, width), transposed)
    fixed = is_fixed((height, width))
    name = 'shift_input_grad' if transposed else 'shift_sum'
    key, config = find(name, sources[0], (height, width), kernels[0].shape[2:])
    # The rows decide the order of the sums, for taps that all of them share come first; no table may change them.
    rows = min(_MOST_ROWS, _MOST_SUMS // strip.tiled(width, _LONGEST_TILE, fixed).tile)
    strip = strip.tiled(width, config.tile or _LONGEST_TILE, fixed)
    sources = [source.contiguous(memory_format=torch.channels_last) for source in sources]
    taps = [tap_rows(kernel, columns=False) for kernel in kernels]
    names = ('horizontal', 'vertical', 'centre')
    arguments = {
        **dict(zip((f'source_{name}' for name in names), [*sources, None][:3], strict=True)),
        **dict(zip(names, [*taps, None][:3], strict=True)),
        'bias': None if bias is None else bias.contiguous(),
        'out': torch.empty_like(sources[0]),
        'height': height,
        'width': width,
    }
    constants = {
        'STRIP': strip,
        'STRIP_CROSS': strip_cross,
        'CENTRE': replace(centre[0][1], tile=strip.tile) if centre else None,
        'VERTICAL': replace(vertical, tile=strip.tile),
        'VERTICAL_CROSS': vertical_cross,
    }
    tiles = -(-width // strip.tile) * -(-height // rows)
    constants['ROWS'] = rows
    return _launch(shift_sum, n * tiles, arguments, constants, rows * strip.tile // 2, key, config)


def _axes(
    kernels: Sequence[Tensor], paddings: Sequence[Sides], size: tuple[int, int], transposed: bool
) -> list[tuple[Axis, Axis]]:
    """Vertical and horizontal axis of each branch."""
    return [
        (
            Axis(kernel.shape[2], 1, 1, top, transposed, size[0], size[0]),
            Axis(kernel.shape[3], 1, 1, left, transposed, size[1], size[1]),
        )
        for kernel, (left, _, top, _) in zip(kernels, paddings, strict=True)
    ]


def _launch(
    kernel: triton.runtime.KernelInterface,
    tiles: int,
    arguments: dict[str, Tensor | int | None],
    constants: dict[str, Axis | int | None],
    sums: int,
    key: Key | None,
    config: Config,
) -> Launch:
    source = next(iter(arguments.values()))
    _, channels, *size = source.shape
    if not is_fixed(size):
        constants = {
            name: replace(value, source=0, size=0) if isinstance(value, Axis) else value
            for name, value in constants.items()
        }
    block = config.block or channel_block(channels)
    return Launch(
        kernel,
        (-(-channels // block) * tiles,),
        arguments,
        {'C': channels, 'BLOCK': block, **constants},
        config.warps or warps(block, sums),
        config.registers or max_registers(source, constants['STRIP']),
        key,
    )
