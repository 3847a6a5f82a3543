"""Large depthwise convolutions in re-parameterised form: a sum of parallel branches that folds into one or two."""

from typing import Literal

import torch
from torch import Tensor, nn

from sw_mm.kernels.arguments import positive_integer

from .conv_norm import ConvNorm, DepthwiseConv2d, set_weights
from .norm import NormFactory
from .reparam import check_deploy, embed_kernel, fuse_norm


class LargeDepthwiseConv2d(nn.Module):
    """Large-kernel spatial mixing by a dense kernel or by two strips, with a small kernel beside it.

    Each branch is a depthwise convolution with a batch norm of its own, and the branches are added:

    - dense (RepLKNet, ConvNeXt-31): ``lkb_origin`` of ``kernel_size`` squared, and ``small_conv``;
    - ``decomposed`` (SLaK): a column ``LoRA1`` of ``kernel_size x small_kernel``, a row ``LoRA2`` of
      ``small_kernel x kernel_size``, and ``small_conv``.

    The map keeps its size at stride 1. In evaluation mode the layer folds exactly, into ``lkb_reparam`` (dense) or into
    the strips ``vertical`` and ``horizontal`` (decomposed; one dense kernel would cost five times as much at 51 x 5).
    The official SLaK code merges decomposed kernels in no way, so their ``'official'`` form is the training form.

    Source: RepLKNet, arXiv:2203.06717, section 3 and https://github.com/DingXiaoH/RepLKNet-pytorch; SLaK,
    arXiv:2207.03620, section 4 and https://github.com/VITA-Group/SLaK. Parameter names are those of both.

    Args:
        channels: Channels of the input, and of the output.
        kernel_size: Long side of the kernels, odd.
        stride: Along both axes.
        dilation: Distance of neighbouring taps, of all branches.
        small_kernel: Side of the small kernel, and short side of the strips, odd. Without ``decomposed``, None or a
            number that is not below ``kernel_size`` leaves the small kernel out.
        decomposed: Whether two strips stand for the dense kernel.
        norm_layer: Makes the batch norm of a branch from its number of channels; None leaves the norms out.
        deploy: Build the ``'full'`` form (True) or the ``'official'`` form right away.

    Raises:
        ValueError: If an argument is of another type or out of its range.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        small_kernel: int | None = 5,
        decomposed: bool = False,
        norm_layer: NormFactory | None = nn.BatchNorm2d,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        super().__init__()
        check_deploy(deploy)
        channels, kernel_size = positive_integer('channels', channels), _odd('kernel_size', kernel_size)
        if small_kernel is not None:
            small_kernel = positive_integer('small_kernel', small_kernel)
            if small_kernel < kernel_size:
                _odd('small_kernel', small_kernel)
        with_small = small_kernel is not None and small_kernel < kernel_size
        if decomposed and not with_small:
            raise ValueError(
                f'small_kernel must be below kernel_size={kernel_size} if decomposed=True; got {small_kernel!r}'
            )
        self.channels, self.kernel_size = channels, kernel_size
        self.stride, self.dilation = stride, dilation
        self.decomposed = decomposed
        self.merged = deploy is True or (deploy == 'official' and not decomposed)

        if self.merged:
            self._add_merged((kernel_size, small_kernel) if decomposed else (kernel_size, kernel_size))
            return
        if decomposed:
            sizes = dict(LoRA1=(kernel_size, small_kernel), LoRA2=(small_kernel, kernel_size))
        else:
            sizes = dict(lkb_origin=(kernel_size, kernel_size))
        if with_small:
            sizes['small_conv'] = (small_kernel, small_kernel)
        for name, size in sizes.items():
            norm = None if norm_layer is None else norm_layer(channels)
            self.add_module(name, ConvNorm(DepthwiseConv2d(channels, size, stride, dilation, bias=False), norm))

    def _add_merged(self, size: tuple[int, int]) -> None:
        conv = DepthwiseConv2d(self.channels, size, self.stride, self.dilation)
        if not self.decomposed:
            self.lkb_reparam = conv
            return
        self.vertical = conv
        self.horizontal = DepthwiseConv2d(self.channels, size[::-1], self.stride, self.dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(N, channels, H, W)`` spatially; the result has that shape at stride 1."""
        first, *others = self.children()
        out = first(x)
        for branch in others:
            out = out + branch(x)
        return out

    def large_kernel_weights(self) -> list[list[nn.Parameter]]:
        """Return the weights that sparse training masks: the strips or the large kernel, not the small one."""
        branches = dict(self.named_children())
        return [[branches[name].conv.weight] for name in ('LoRA1', 'LoRA2', 'lkb_origin') if name in branches]

    @torch.no_grad()
    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Merge the branches in place, computed in float64; in evaluation mode the output stays the same.

        Repeating the call changes nothing. The layer built with ``deploy=True`` (for ``'full'``) or
        ``deploy='official'`` loads the resulting state dict.

        Args:
            form: ``'full'`` or ``'official'``; they differ for ``decomposed`` layers only.

        Raises:
            ValueError: If ``form`` is unknown, or a norm keeps no running statistics.
        """
        if form not in ('full', 'official'):
            raise ValueError(f"form must be 'full' or 'official'; got {form!r}")
        if self.merged or (form == 'official' and self.decomposed):
            return
        branches = dict(self.named_children())
        folded = {name: branch.folded() for name, branch in branches.items()}
        main, row = (branches['LoRA1'], branches['LoRA2']) if self.decomposed else (branches['lkb_origin'], None)
        (weight, _), *_ = folded.values()
        if 'small_conv' in folded:
            weight = weight + embed_kernel(folded['small_conv'][0], weight.shape[2:])
        for name in branches:
            delattr(self, name)
        set_weights(main.conv, weight, sum(bias for _, bias in folded.values()))
        if self.decomposed:
            set_weights(row.conv, folded['LoRA2'][0], None)
            self.vertical, self.horizontal = main.conv, row.conv
        else:
            self.lkb_reparam = main.conv
        self.merged = True


def _odd(name: str, value: object) -> int:
    value = positive_integer(name, value)
    if value % 2 == 0:
        raise ValueError(f'{name} must be odd; got {value}')
    return value


# Kernel sizes and dilations of the branches beside a kernel of so many rows and columns: UniRepLKNet's official table.
DILATED_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
}


def _check_branches(branches: object, kernel_size: int) -> tuple[tuple[int, int], ...]:
    """Return kernel size and dilation of each branch."""
    try:
        pairs = tuple((_odd('kernel size', k), positive_integer('dilation', r)) for k, r in branches)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'branches must be pairs (kernel size, dilation) of positive integers, the size odd; got {branches!r}'
        ) from error
    if len(set(pairs)) < len(pairs) or any((k - 1) * r >= kernel_size for k, r in pairs):
        raise ValueError(
            f'branches must all be different, and (kernel size - 1) * dilation below kernel_size={kernel_size}; '
            f'got {branches!r}'
        )
    return pairs


class DilatedReparamConv2d(nn.Module):
    """A large depthwise kernel with dilated small kernels beside it, a batch norm behind each, all added.

    It folds exactly into the one convolution ``lk_origin``: a dilated kernel is a larger one with zeros between.

    Source: UniRepLKNet, arXiv:2311.15599, section 3.1, and https://github.com/AILab-CVPR/UniRepLKNet, whose parameter
    names and table of branches (which the paper misprints in one row) hold here.

    Args:
        channels: Channels of the input, and of the output.
        kernel_size: Side of the large kernel, odd.
        branches: Kernel size and dilation of each branch, all different, none reaching beyond the large kernel; None
            takes the official ones, known for sizes 5 to 17.
        norm_layer: Makes the batch norm of a branch from its number of channels.
        deploy: Build the folded form right away; True and ``'official'`` are the same here.

    Raises:
        ValueError: If an argument is of another type or out of its range.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        branches: tuple[tuple[int, int], ...] | None = None,
        norm_layer: NormFactory = nn.BatchNorm2d,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        super().__init__()
        check_deploy(deploy)
        channels, kernel_size = positive_integer('channels', channels), _odd('kernel_size', kernel_size)
        if branches is None:
            if kernel_size not in DILATED_BRANCHES:
                raise ValueError(
                    f'kernel_size must be one of {sorted(DILATED_BRANCHES)} where branches=None; got {kernel_size}'
                )
            branches = DILATED_BRANCHES[kernel_size]
        branches = _check_branches(branches, kernel_size)
        self.merged = deploy is not False
        self.branches = () if self.merged else branches
        self.lk_origin = DepthwiseConv2d(channels, kernel_size, bias=self.merged)
        if self.merged:
            return
        self.origin_bn = norm_layer(channels)
        for k, r in branches:
            self.add_module(f'dil_conv_k{k}_{r}', DepthwiseConv2d(channels, k, dilation=r, bias=False))
            self.add_module(f'dil_bn_k{k}_{r}', norm_layer(channels))

    def _pairs(self) -> list[tuple[DepthwiseConv2d, nn.Module]]:
        """Convolution and norm of every branch, the large kernel first."""
        names = [(f'dil_conv_k{k}_{r}', f'dil_bn_k{k}_{r}') for k, r in self.branches]
        return [
            (self.get_submodule(conv), self.get_submodule(norm)) for conv, norm in [('lk_origin', 'origin_bn'), *names]
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(N, channels, H, W)`` spatially; the result has that shape."""
        if self.merged:
            return self.lk_origin(x)
        (conv, norm), *others = self._pairs()
        out = norm(conv(x))
        for conv, norm in others:
            out = out + norm(conv(x))
        return out

    def large_kernel_weights(self) -> list[list[nn.Parameter]]:
        """Return the weights that sparse training masks: the large kernel, not the dilated ones."""
        return [] if self.merged else [[self.lk_origin.weight]]

    @torch.no_grad()
    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Merge the branches in place, computed in float64; in evaluation mode the output stays the same.

        Repeating the call changes nothing. The layer built with ``deploy=True`` loads the resulting state dict.

        Args:
            form: ``'full'`` and ``'official'`` are the same here.

        Raises:
            ValueError: If ``form`` is unknown, or a norm keeps no running statistics.
        """
        if form not in ('full', 'official'):
            raise ValueError(f"form must be 'full' or 'official'; got {form!r}")
        if self.merged:
            return
        folded = [fuse_norm(conv.weight, None, norm) for conv, norm in self._pairs()]
        (weight, _), *others = folded
        for (kernel, _), (_, dilation) in zip(others, self.branches, strict=True):
            weight = weight + embed_kernel(kernel, weight.shape[2:], dilation)
        set_weights(self.lk_origin, weight, sum(bias for _, bias in folded))
        del self.origin_bn
        for k, r in self.branches:
            delattr(self, f'dil_conv_k{k}_{r}')
            delattr(self, f'dil_bn_k{k}_{r}')
        self.branches, self.merged = (), True

    def absorb_norm(self, norm: nn.Module) -> None:
        """Fold the batch norm that follows the layer into it, in place; the branches are merged first.

        Raises:
            ValueError: If a norm keeps no running statistics.
        """
        self.switch_to_deploy()
        self.lk_origin.absorb_norm(norm)
