"""Depthwise convolution and its gradients in Triton.

Every pass is one launch. A program writes one tile of one line for a block of channels; it walks over those kernel rows
that lie on the map only. The gradient with respect to the input is the same kernel with source and result exchanged:
for any stride and dilation, which tap meets which pixel is still known at compile time.
"""

from dataclasses import replace

import torch
import triton
from torch import Tensor
from triton import language as tl

from .._triton import DTYPES, Axis, Launch, block_of_channels, channel_block, load_line, met, slide, tap_range

_Pair = tuple[int, int]
_Padding = tuple[int, int, int, int]

# Positions of a line whose sums one thread holds in registers.
_LONGEST_TILE = 28
# Square maps up to this side are taken to come in this size only, so that compiling for the size pays.
_LARGEST_FIXED = 64


@triton.jit
def conv_tile(
    source,
    taps,
    bias,
    out,
    pixel,
    line_stride,
    out_pixel,
    line,
    lines,
    start,
    at,
    source_size,
    size,
    mask,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    LINE: tl.constexpr,
    CROSS: tl.constexpr,
    FIXED: tl.constexpr,
):
    """Convolve one tile; pointers are those of the image, of the output line, and of the channels' first tap."""
    TILE: tl.constexpr = LINE.tile
    FIRST: tl.constexpr = LINE.first
    SPAN: tl.constexpr = LINE.span
    initial = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        initial += tl.load(bias).to(tl.float32)
    sums = ()
    for _ in tl.static_range(TILE):
        sums += (initial,)
    first, stop = tap_range(line, lines, CROSS)
    for tap in range(first, stop, CROSS.step if CROSS.transposed else 1):
        origin = source + met(line.to(tl.int64), tap, CROSS) * line_stride + at * pixel
        pixels = load_line(origin, pixel, at, source_size, FIRST, SPAN, FIXED)
        sums = slide(sums, pixels, taps + tap * (LINE.taps * C), at, source_size, C, LINE, FIXED)
    for i in tl.static_range(TILE):
        if not FIXED:
            tl.store(out + (start + i) * out_pixel, sums[i].to(out.dtype.element_ty), mask=mask & (start + i < size))
        elif start + i < size:
            tl.store(out + (start + i) * out_pixel, sums[i].to(out.dtype.element_ty), mask=mask)


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
    """Convolve, or transposed: one program is a tile of a line, for a block of channels. Sizes count along the lines."""
    FIXED: tl.constexpr = LINE.size > 0
    source_size = LINE.source if FIXED else source_size
    source_lines = CROSS.source if FIXED else source_lines
    size = LINE.size if FIXED else size
    lines = CROSS.size if FIXED else lines
    tiles = (size + LINE.tile - 1) // LINE.tile

    # Neighbouring channels first, then along the lines of an image: what runs together shares pixels.
    blocks: tl.constexpr = (C + BLOCK - 1) // BLOCK
    program = tl.program_id(0)
    channel, mask = block_of_channels(program % blocks, C, BLOCK)
    tile = program // blocks % tiles
    line = program // blocks // tiles % lines
    image = (program // blocks // tiles // lines).to(tl.int64)

    source += image * source_lines * source_size * C + channel
    out += image * lines * size * C + channel
    pixel = (source_lines if COLUMNS else 1) * C
    out_pixel = (lines if COLUMNS else 1) * C
    line_stride = C if COLUMNS else source_size * C
    out += line.to(tl.int64) * (C if COLUMNS else size * C)
    taps += channel
    bias = None if bias is None else bias + channel

    if FIXED:
        TILES: tl.constexpr = (LINE.size + LINE.tile - 1) // LINE.tile
        for i in tl.static_range(TILES):
            if tile == i:
                conv_tile(
                    source, taps, bias, out, pixel, line_stride, out_pixel,
                    line, source_lines, i * LINE.tile, i * LINE.advance, LINE.source, LINE.size, mask, C, BLOCK, LINE, CROSS, FIXED,
                )  # fmt: skip
    else:
        conv_tile(
            source, taps, bias, out, pixel, line_stride, out_pixel,
            line, source_lines, tile * LINE.tile, tile * LINE.advance, source_size, size, mask, C, BLOCK, LINE, CROSS, FIXED,
        )  # fmt: skip


def plan_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Padding, dilation: _Pair
) -> Launch:
    """Plan :func:`forward`; the launch's argument ``out`` is the result."""
    return _plan_conv(x, weight, bias, _output_size(x, weight, stride, padding, dilation), stride, padding, dilation)


def plan_input_grad(
    grad: Tensor, weight: Tensor, input_size: _Pair, stride: _Pair, padding: _Padding, dilation: _Pair
) -> Launch:
    """Plan :func:`input_grad`; the launch's argument ``out`` is the result."""
    return _plan_conv(grad, weight, None, input_size, stride, padding, dilation, transposed=True)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: _Pair, padding: _Padding, dilation: _Pair
) -> Tensor:
    """Convolve every channel with its own kernel.

    Args:
        x: Input ``(N, C, H, W)`` in fp32, fp16 or bf16; copied unless channels_last.
        weight: Kernels ``(C, 1, kh, kw)``.
        bias: ``(C,)`` or None.
        stride: Along height and width.
        padding: Zeros on the left, right, top and bottom; negative numbers cut.
        dilation: Distance of neighbouring taps along height and width.

    Returns:
        The output in the dtype of ``x``, channels_last.
    """
    launch = plan_forward(x, weight, bias, stride, padding, dilation)
    launch.run()
    return launch.arguments['out']


def input_grad(
    grad: Tensor, weight: Tensor, input_size: _Pair, stride: _Pair, padding: _Padding, dilation: _Pair
) -> Tensor:
    """Gradient of :func:`forward` with respect to its input of the given height and width, channels_last."""
    launch = plan_input_grad(grad, weight, input_size, stride, padding, dilation)
    launch.run()
    return launch.arguments['out']


def _output_size(x: Tensor, weight: Tensor, stride: _Pair, padding: _Padding, dilation: _Pair) -> _Pair:
    left, right, top, bottom = padding
    padded = x.shape[2] + top + bottom, x.shape[3] + left + right
    return tuple((padded[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1))


def _plan_conv(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    size: _Pair,
    stride: _Pair,
    padding: _Padding,
    dilation: _Pair,
    transposed: bool = False,
) -> Launch:
    n, channels, *source_size = source.shape
    kernel_size = weight.shape[2:]
    axes = [
        Axis(kernel_size[i], stride[i], dilation[i], (padding[2], padding[0])[i], transposed, source_size[i], size[i])
        for i in (0, 1)
    ]
    columns = kernel_size[0] > kernel_size[1]
    cross, line = reversed(axes) if columns else axes
    line = line.tiled(line.size, _LONGEST_TILE)
    out = torch.empty((n, channels, *size), dtype=source.dtype, device=source.device, memory_format=torch.channels_last)
    block = channel_block(channels)
    arguments = {
        'source': source.contiguous(memory_format=torch.channels_last),
        # fp32 taps need no conversion in the loop.
        'taps': weight[:, 0].permute(2, 1, 0).permute((0, 1, 2) if columns else (1, 0, 2)).float().contiguous(),
        'bias': None if bias is None else bias.contiguous(),
        'out': out,
        'source_size': line.source,
        'source_lines': cross.source,
        'size': line.size,
        'lines': cross.size,
    }
    programs = -(-channels // block) * -(-line.size // line.tile) * cross.size * n
    if not _is_fixed(source_size, size):
        line, cross = (replace(axis, source=0, size=0) for axis in (line, cross))
    constants = {'C': channels, 'BLOCK': block, 'COLUMNS': columns, 'LINE': line, 'CROSS': cross}
    return Launch(conv_lines, (programs,), arguments, constants, num_warps=block // 32)


def _is_fixed(*sizes: _Pair) -> bool:
    return all(height == width <= _LARGEST_FIXED for height, width in sizes)
