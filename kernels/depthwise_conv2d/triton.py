"""Depthwise convolution and its gradients in Triton, one launch each.

A program of :func:`conv_lines` writes a tile of one line, for a block of channels, and walks over those kernel rows
that lie on the map only. The gradient with respect to the input is the same kernel with source and result exchanged:
for any stride and dilation, which tap meets which pixel is still known at compile time.

The gradient with respect to the kernels is a convolution as well, of the input with the output's gradient; its output
is as small as a kernel, so :func:`weight_grad_lines` splits the batch among programs, whose partial sums are added
afterwards. No pass uses atomics: equal input gives equal bits.

There is no path for tensor cores. It would pay for kernels of 25 taps and more on maps of 28 pixels and more in 16
bits, which these kernels compute at the rate of fp32 arithmetic: two stages of RepLKNet-31B.
"""

from dataclasses import replace

import torch
import triton
from torch import Tensor
from triton import language as tl

from .._triton import (
    DTYPES,
    INTERPRETED,
    Axis,
    Launch,
    block_of_channels,
    channel_block,
    convolve,
    line_and_pixel,
    load_line,
    max_registers,
    met,
    slide,
    start_sums,
    store_line,
    tap_range,
    tile_length,
    warps,
)
from .._tuned import find
from .geometry import Pair, Sides, memory_format_of

# Positions of a line, or taps of a kernel, whose sums one thread holds in registers.
_LONGEST_TILE = 28
# Square maps up to this side are taken to come in this size only, so that compiling for the size pays.
_LARGEST_FIXED = 64
# Warps that the gradient of the kernels is split into: 16 on each multiprocessor of the largest GPUs, and the same on
# all others so that results do not depend on the device.
_WEIGHT_GRAD_WARPS = 2048


# A function apart for every tile: some of Triton's compiler passes take quadratic time.
@triton.jit(noinline=True)
def conv_tile(
    source,
    taps,
    bias,
    out,
    block,
    image,
    line,
    start,
    at,
    source_size,
    source_lines,
    size,
    lines,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Convolve the tile from ``start``, for which the source is read around ``at``."""
    TILE: tl.constexpr = LINE.tile
    channel, mask = block_of_channels(block, C, BLOCK)
    source += image * source_lines * source_size * C + channel
    sums = start_sums(bias, channel, BLOCK, TILE)
    first, stop = tap_range(line, source_lines, CROSS.taps, CROSS)
    sums = convolve(
        sums, source, taps + channel, line, first, stop, at, source_size, source_lines, C, COLUMNS, LINE, CROSS, FIXED
    )
    line_stride, pixel = line_and_pixel(lines, size, C, COLUMNS)
    out += image * lines * size * C + line * line_stride + channel
    store_line(out, pixel, sums, start, size, mask, TILE, FIXED)


@triton.jit(do_not_specialize=['source_size', 'source_lines', 'size', 'lines'])
def conv_lines(
    source,
    taps,
    bias,
    out,
    source_size,
    source_lines,
    size,
    lines,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
):
    """Convolve, or transposed: one program is a tile of a line, for a block of channels.

    Sizes count along the lines, and are arguments where the axes leave them open.
    """
    BLOCKS: tl.constexpr = (C + BLOCK - 1) // BLOCK
    TILES: tl.constexpr = (LINE.size + LINE.tile - 1) // LINE.tile
    program = tl.program_id(0)
    block = program % BLOCKS
    if TILES:
        tile = program // BLOCKS % TILES
        line = program // (BLOCKS * TILES) % CROSS.size
        image = program // (BLOCKS * TILES * CROSS.size)
        for i in tl.static_range(TILES):
            if tile == i:
                conv_tile(
                    source, taps, bias, out, block, image.to(tl.int64), line.to(tl.int64), i * LINE.tile,
                    i * LINE.advance, LINE.source, CROSS.source, LINE.size, CROSS.size,
                    C, BLOCK, COLUMNS, LINE, CROSS, True,
                )  # fmt: skip
    else:
        tiles = (size + LINE.tile - 1) // LINE.tile
        tile = program // BLOCKS % tiles
        line = program // BLOCKS // tiles % lines
        image = program // BLOCKS // tiles // lines
        conv_tile(
            source, taps, bias, out, block, image.to(tl.int64), line.to(tl.int64), tile * LINE.tile,
            tile * LINE.advance, source_size, source_lines, size, lines, C, BLOCK, COLUMNS, LINE, CROSS, False,
        )  # fmt: skip


@triton.jit(noinline=True)
def weight_grad_tile(
    x,
    grad,
    partial,
    block,
    split,
    tap,
    start,
    images,
    source_size,
    source_lines,
    size,
    lines,
    images_per_split,
    lines_per_split,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Sum up the taps from ``start`` of one row of the kernels, over a split's share of the images and lines."""
    TILE: tl.constexpr = LINE.tile
    FIRST: tl.constexpr = LINE.first
    SPAN: tl.constexpr = LINE.span
    channel, mask = block_of_channels(block, C, BLOCK)
    line_stride, pixel = line_and_pixel(source_lines, source_size, C, COLUMNS)
    grad_line, grad_pixel = line_and_pixel(lines, size, C, COLUMNS)

    line_splits = (lines + lines_per_split - 1) // lines_per_split
    first, stop = tap_range(tap, source_lines, lines, CROSS)
    first = tl.maximum(first, split % line_splits * lines_per_split)
    stop = tl.minimum(stop, split % line_splits * lines_per_split + lines_per_split)
    first_image = split // line_splits * images_per_split
    stop_image = tl.minimum(first_image + images_per_split, images)

    sums = start_sums(None, channel, BLOCK, TILE)
    x += first_image * source_lines * source_size * C + channel
    grad += first_image * lines * size * C + channel
    for _ in range(first_image, stop_image):
        for line in range(first, stop):
            row = x + met(tap, line, CROSS) * line_stride
            if FIXED:
                at: tl.constexpr = start * LINE.stride
                pixels = load_line(row + at * pixel, pixel, at, source_size, FIRST, SPAN, FIXED)
                sums = slide(
                    sums, pixels, grad + line * grad_line, grad_pixel, None, at, source_size, FIRST, LINE, FIXED
                )
            else:
                for position in range(0, size, LINE.taps):
                    begin = start * LINE.stride + position * LINE.dilation
                    pixels = load_line(row + begin * pixel, pixel, begin, source_size, FIRST, SPAN, FIXED)
                    origin = grad + line * grad_line + position * grad_pixel
                    sums = slide(
                        sums, pixels, origin, grad_pixel, size - position, begin, source_size, FIRST, LINE, FIXED
                    )
        x += source_lines * source_size * C
        grad += lines * size * C
    partial += (split * CROSS.size + tap) * (LINE.size * C) + channel
    store_line(partial, C, sums, start, LINE.size, mask, TILE, FIXED)


@triton.jit(
    do_not_specialize=[
        'images', 'source_size', 'source_lines', 'size', 'lines', 'images_per_split', 'lines_per_split',
    ]
)  # fmt: skip
def weight_grad_lines(
    x,
    grad,
    partial,
    images,
    source_size,
    source_lines,
    size,
    lines,
    images_per_split,
    lines_per_split,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
):
    """Gradient of the kernels: one program is some taps of one kernel row, for a block of channels and a split.

    Of the axes, the taps are the positions of the output's gradient, and what is written is the kernel.
    """
    BLOCKS: tl.constexpr = (C + BLOCK - 1) // BLOCK
    TILES: tl.constexpr = (LINE.size + LINE.tile - 1) // LINE.tile
    program = tl.program_id(0)
    block = program % BLOCKS
    tile = program // BLOCKS % TILES
    tap = (program // (BLOCKS * TILES) % CROSS.size).to(tl.int64)
    split = (program // (BLOCKS * TILES * CROSS.size)).to(tl.int64)
    if LINE.source:
        for i in tl.static_range(TILES):
            if tile == i:
                weight_grad_tile(
                    x, grad, partial, block, split, tap, i * LINE.tile, images,
                    LINE.source, CROSS.source, LINE.taps, CROSS.taps, images_per_split, lines_per_split,
                    C, BLOCK, COLUMNS, LINE, CROSS, True,
                )  # fmt: skip
    else:
        weight_grad_tile(
            x, grad, partial, block, split, tap, tile * LINE.tile, images,
            source_size, source_lines, size, lines, images_per_split, lines_per_split,
            C, BLOCK, COLUMNS, LINE, CROSS, False,
        )  # fmt: skip


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)`` in fp32, fp16 or bf16; copied unless channels_last.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        stride: Along height and width.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.
        dilation: Distance of neighbouring taps along height and width.

    Returns:
        The output in the dtype and memory format of ``x``.
    """
    launch = plan_forward(x, weight, bias, stride, padding, dilation)
    launch.run()
    return launch.arguments['out'].contiguous(memory_format=memory_format_of(x))


def input_grad(grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to an input of the given size, in the format of ``grad``."""
    launch = plan_input_grad(grad, weight, input_size, stride, padding, dilation)
    launch.run()
    return launch.arguments['out'].contiguous(memory_format=memory_format_of(grad))


def weight_grad(x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Tensor:
    """Gradient of :func:`forward` with respect to its kernels, ``(C, 1, kh, kw)`` in the dtype of ``x``.

    The batch is split and the parts are added in an order that depends on shapes only.
    """
    launch = plan_weight_grad(x, grad, kernel_size, stride, padding, dilation)
    launch.run()
    taps = launch.arguments['partial'].sum(dim=0)
    taps = taps.permute(2, 1, 0) if launch.constants['COLUMNS'] else taps.permute(2, 0, 1)
    return taps.unsqueeze(1).to(x.dtype).contiguous()


def unsupported(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> str | None:
    """Tell why the kernels cannot take these tensors, or None if they can."""
    for name, tensor in (('x', x), ('weight', weight), ('bias', bias)):
        if tensor is not None and tensor.dtype not in DTYPES:
            return f'{name} is {tensor.dtype}; the Triton kernels take {", ".join(map(str, DTYPES))}'
        if tensor is not None and not (tensor.is_cuda or (tensor.device.type == 'cpu' and INTERPRETED)):
            return (
                f'{name} is on {tensor.device}; the Triton kernels need a CUDA device, '
                'or TRITON_INTERPRET=1 in the environment when Python starts'
            )
    return None


def plan_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Sides, dilation: Pair
) -> Launch:
    """Plan :func:`forward`; the launch's argument ``out`` is the result."""
    left, right, top, bottom = padding
    padded = x.shape[2] + top + bottom, x.shape[3] + left + right
    size = tuple((padded[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
    return _plan_conv(x, weight, bias, size, stride, (top, left), dilation, transposed=False)


def plan_input_grad(
    grad: Tensor, weight: Tensor, input_size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> Launch:
    """Plan :func:`input_grad`; the launch's argument ``out`` is the result."""
    left, _, top, _ = padding
    return _plan_conv(grad, weight, None, input_size, stride, (top, left), dilation, transposed=True)


def _plan_conv(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    size: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    transposed: bool,
) -> Launch:
    n, channels, *source_size = source.shape
    axes = [
        Axis(weight.shape[2 + i], stride[i], dilation[i], pad[i], transposed, source_size[i], size[i]) for i in (0, 1)
    ]
    columns = weight.shape[2] > weight.shape[3]
    cross, line = reversed(axes) if columns else axes
    fixed = is_fixed(source_size, size)
    name, mapped = ('input_grad', size) if transposed else ('forward', source_size)
    key, config = find(name, source, mapped, weight.shape[2:], stride, dilation)
    line = line.tiled(line.size, config.tile or _LONGEST_TILE, fixed)
    block = config.block or channel_block(channels)
    arguments = {
        'source': source.contiguous(memory_format=torch.channels_last),
        'taps': tap_rows(weight, columns),
        'bias': None if bias is None else bias.contiguous(),
        'out': torch.empty(
            (n, channels, *size), dtype=source.dtype, device=source.device, memory_format=torch.channels_last
        ),
        'source_size': line.source,
        'source_lines': cross.source,
        'size': line.size,
        'lines': cross.size,
    }
    programs = -(-channels // block) * -(-line.size // line.tile) * cross.size * n
    if not fixed:
        line, cross = (replace(axis, source=0, size=0) for axis in (line, cross))
    constants = {'C': channels, 'BLOCK': block, 'COLUMNS': columns, 'LINE': line, 'CROSS': cross}
    num_warps, registers = config.warps or warps(block, line.tile), config.registers or max_registers(source, line)
    return Launch(conv_lines, (programs,), arguments, constants, num_warps, registers, key)


def plan_weight_grad(
    x: Tensor, grad: Tensor, kernel_size: Pair, stride: Pair, padding: Sides, dilation: Pair
) -> Launch:
    """Plan :func:`weight_grad`; the launch's argument ``partial`` has the sums of each split, one kernel row a row."""
    n, channels, *size = grad.shape
    axes = [
        # Seen from the kernel: neighbouring taps are `dilation` apart on the map, and neighbouring outputs `stride`.
        Axis(size[i], dilation[i], stride[i], (padding[2], padding[0])[i], False, x.shape[2 + i], kernel_size[i])
        for i in (0, 1)
    ]
    columns = kernel_size[0] > kernel_size[1]
    cross, line = reversed(axes) if columns else axes
    key, config = find('weight_grad', x, x.shape[2:], kernel_size, stride, dilation)
    # How the batch is split decides the order of the sums, so it must not depend on the table.
    tiles = -(-line.size // line.tiled(line.size, _LONGEST_TILE, fixed=True).tile)
    threads = -(-channels // channel_block(channels)) * channel_block(channels) * tiles * cross.size
    images_per_split, lines_per_split = _share(n, cross.taps, -(-_WEIGHT_GRAD_WARPS * 32 // threads))
    line = line.tiled(line.size, config.tile or _LONGEST_TILE, fixed=True)
    block = config.block or channel_block(channels)
    programs = -(-channels // block) * -(-line.size // line.tile) * cross.size
    splits = -(-n // images_per_split) * -(-cross.taps // lines_per_split)
    arguments = {
        'x': x.contiguous(memory_format=torch.channels_last),
        'grad': grad.contiguous(memory_format=torch.channels_last),
        'partial': x.new_empty((splits, cross.size, line.size, channels), dtype=torch.float32),
        'images': n,
        'source_size': line.source,
        'source_lines': cross.source,
        'size': line.taps,
        'lines': cross.taps,
        'images_per_split': images_per_split,
        'lines_per_split': lines_per_split,
    }
    fixed, tail = is_fixed(x.shape[2:], size), channels % block > 0
    # Pixels take registers as sums do, but a few sums let go of them soon. Where channels are surplus, loads of several
    # channels are joined only as far as their number has factors of two; further channels would cost addresses.
    held = line.tile if fixed and line.tile <= 7 else max(line.tile, line.taps) if tail else line.taps
    num_warps = config.warps or max(warps(block, held), block // 32 // (channels & -channels) if tail else 1)
    if not fixed:
        line = replace(line, source=0, taps=tile_length(line.taps, _LONGEST_TILE, fixed=False))
        cross = replace(cross, source=0, taps=0)
    constants = {'C': channels, 'BLOCK': block, 'COLUMNS': columns, 'LINE': line, 'CROSS': cross}
    registers = config.registers or max_registers(x, line)
    return Launch(weight_grad_lines, (programs * splits,), arguments, constants, num_warps, registers, key)


def tap_rows(weight: Tensor, columns: bool) -> Tensor:
    """Lay kernels ``(C, 1, kh, kw)`` out as rows of taps, or as columns, with the channels last.

    They become fp32: a few numbers more to read, but none to convert in the loops.
    """
    return weight[:, 0].permute((2, 1, 0) if columns else (1, 2, 0)).float().contiguous()


def is_fixed(*sizes: Pair) -> bool:
    """Tell whether to compile for these sizes of maps."""
    return all(height == width <= _LARGEST_FIXED for height, width in sizes)


def _share(images: int, lines: int, splits: int) -> Pair:
    """Images and lines of a split, to make about as many splits as wanted; lines are split if images are too few."""
    images_per_split = max(images // splits, 1)
    lines_per_split = max(lines * images // splits, 1) if splits > images else lines
    return images_per_split, lines_per_split
