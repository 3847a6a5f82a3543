"""The shift-wise convolution layer, in training form and in its two deploy forms."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sw_mm.kernels import channel_split, depthwise_macs, folded_shift_conv2d, shift_conv2d, shift_strips, shift_tables
from sw_mm.kernels.arguments import positive_integer

from .reparam import check_deploy, norm_as_affine, scale_outputs

# Those of the horizontal, the vertical and the centred branch.
BRANCH_NORMS = ('bn_lora1', 'bn_lora2', 'bn_small')


class ShiftWiseConv2d(nn.Module):
    """Large-kernel spatial mixing from small filters, shift-wise (ShiftwiseConv, CVPR 2025, arXiv:2401.12736).

    Part of the channels (``rep``) goes through the operator: the filters of all paths are summed and laid out as a
    horizontal strip, a vertical strip and a centred kernel, every branch has its own batch norm, and the branches and
    a shortcut are added. The other channels (``ghost``) pass unchanged.

    The output's channels are ``[rep..., ghost...]``, not in the order of the input; trained weights rely on that.

    The layer has three forms with equal outputs in evaluation mode. Training form: parameters ``LoRAs.{path}.weight``,
    ``bn_lora1``, ``bn_lora2`` and ``bn_small``, named as in the official checkpoints. ``'official'`` form: the official
    code's own merge, one convolution ``LoRA`` in place of the paths. ``'full'`` form: the parameters ``horizontal``,
    ``vertical`` and ``bias`` of two strip convolutions and nothing else.

    Source: https://github.com/lidc54/shift-wiseConv.

    Args:
        in_channels: Channels of the input, and of the output.
        kernel_size: Nominal length of the strips.
        small_kernel: Side of the small filters, odd, at most ``kernel_size``.
        num_paths: Parallel sets of filters that are summed (the paper's Rep count).
        num_edges: Independent layouts of the filters that are summed.
        ghost_ratio: Part of the channels that bypasses the operator, in ``[0, 1)``.
        even_split: Keep the number of ``rep`` channels even, as ShiftWise v2 does; False gives the rule of v1.
        norm_layer: Makes the batch norm of a branch from its number of channels.
        deploy: Build the ``'full'`` form (True) or the ``'official'`` form right away.

    Raises:
        ValueError: If an argument is of another type or out of its range.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        small_kernel: int = 3,
        num_paths: int = 2,
        num_edges: int = 4,
        ghost_ratio: float = 0.23,
        even_split: bool = True,
        norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        super().__init__()
        num_paths = positive_integer('num_paths', num_paths)
        check_deploy(deploy)
        self.in_channels = in_channels
        self.ghost_ratio = ghost_ratio
        self.even_split = even_split
        rep, _ = channel_split(in_channels, ghost_ratio, even_split)
        self.tables = shift_tables(len(rep), kernel_size, small_kernel, num_edges)
        self.form: Literal['training', 'official', 'full'] = {False: 'training', True: 'full'}.get(deploy, deploy)

        channels, k, length = self.tables.channels, self.tables.small_kernel, self.tables.strip_length
        if self.form == 'full':
            self.horizontal = nn.Parameter(torch.empty(channels, 1, k, length))
            self.vertical = nn.Parameter(torch.empty(channels, 1, length, k))
            self.bias = nn.Parameter(torch.empty(channels))
        else:
            if self.form == 'training':
                self.LoRAs = nn.ModuleList(self._filters() for _ in range(num_paths))
            else:
                self.LoRA = self._filters()
            for name in BRANCH_NORMS:
                self.add_module(name, norm_layer(channels))
        self.register_buffer('channel_order', None, persistent=False)
        self.register_buffer('connections', None, persistent=False)
        self.reset_parameters()
        self.register_load_state_dict_post_hook(_renew_tables)

    def _filters(self) -> nn.Conv2d:
        """Hold the filters of one path; the module is never called, its weight is laid out as strips."""
        channels, k = self.tables.channels, self.tables.small_kernel
        return nn.Conv2d(channels, channels * self.tables.num_shifts, k, padding=k - 1, groups=channels, bias=False)

    @property
    def _paths(self) -> list[nn.Conv2d]:
        return list(self.LoRAs) if self.form == 'training' else [self.LoRA]

    @property
    def _branch_norms(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in BRANCH_NORMS]

    def reset_parameters(self) -> None:
        """Initialise the layer's own parameters, not those of its submodules, and make the tables anew."""
        if self.form == 'full':
            nn.init.kaiming_uniform_(self.horizontal, a=5**0.5)
            nn.init.kaiming_uniform_(self.vertical, a=5**0.5)
            nn.init.zeros_(self.bias)
        _renew_tables(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(N, in_channels, H, W)`` spatially; the result has that shape and the channels ``[rep..., ghost...]``.

        Raises:
            ValueError: If the input has another number of channels.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'x must be (N, in_channels={self.in_channels}, H, W); got shape {tuple(x.shape)}')
        channels = self.tables.channels
        # Two selections, not one that is split: the operator wants a dense map.
        indices = self.channel_order.split([channels, self.in_channels - channels])
        rep, ghost = (_select_channels(x, index) for index in indices)
        if self.form == 'full':
            mixed = folded_shift_conv2d(rep, self.horizontal, self.vertical, self.bias, self.tables)
        else:
            weight = sum(path.weight for path in self._paths)
            maps = shift_conv2d(rep, weight, self.tables, self.connections)
            mixed = sum((norm(branch) for norm, branch in zip(self._branch_norms, maps, strict=True)), start=rep)
        return torch.cat([mixed, ghost], dim=1)

    @torch.no_grad()
    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Merge the trained weights in place; in evaluation mode the output stays the same.

        Repeating the call changes nothing. The layer built with ``deploy=True`` (for ``'full'``) or
        ``deploy='official'`` loads the resulting state_dict.

        Args:
            form: ``'full'`` folds paths, norms, centred branch and shortcut into two strips and a bias, computed in
                float64; ``'official'`` sums the paths into one convolution and keeps the norms.

        Raises:
            ValueError: If ``form`` is unknown or cannot be reached any more, or a norm keeps no running statistics.
        """
        if form not in ('full', 'official'):
            raise ValueError(f"form must be 'full' or 'official'; got {form!r}")
        if form == self.form:
            return
        if self.form == 'full':
            raise ValueError("form 'official' cannot be recovered from a layer that is folded fully")
        merged = sum(path.weight.double() for path in self._paths)
        if form == 'official':
            self.LoRA = self.LoRAs[0]
            self.LoRA.weight.copy_(merged)
            del self.LoRAs
            for name in BRANCH_NORMS:  # behind the filters, as in a layer that was built in this form
                self._modules[name] = self._modules.pop(name)
        else:
            self._fold(merged)
        self.form = form

    def _fold(self, weight: Tensor) -> None:
        tables, old = self.tables, self._paths[0].weight
        (scale_h, shift_h), (scale_v, shift_v), (scale_c, shift_c) = map(norm_as_affine, self._branch_norms)
        horizontal, vertical, centre = shift_strips(weight, tables, self.connections)
        horizontal, vertical = scale_outputs(horizontal, scale_h), scale_outputs(vertical, scale_v)
        centre = scale_outputs(centre, scale_c)
        margin = tables.small_kernel // 2
        centre[:, :, margin, margin] += 1  # the shortcut
        first = tables.strip_padding[0] - margin
        horizontal[..., first : first + tables.small_kernel] += centre

        trainable = any(parameter.requires_grad for parameter in self.parameters())
        for name in ('LoRAs', 'LoRA', *BRANCH_NORMS):
            self._modules.pop(name, None)
        self.connections = None
        for name, value in (('horizontal', horizontal), ('vertical', vertical), ('bias', shift_h + shift_v + shift_c)):
            setattr(self, name, nn.Parameter(value.to(old), requires_grad=trainable))

    def large_kernel_weights(self) -> list[list[nn.Parameter]]:
        """Return the weights that sparse training masks: the filters of all paths, which share their masks."""
        return [] if self.form == 'full' else [[path.weight for path in self._paths]]

    def published_macs(self, height: int, width: int) -> int:
        """Count multiply-accumulates per image as the papers do, with the filters applied as grouped convolutions.

        Every path counts, so merged forms cost less; the official padding of ``small_kernel - 1`` makes the counted map
        larger than the input, and the additions of the shifts are not counted.
        """
        tables, k = self.tables, self.tables.small_kernel
        paths = 1 if self.form == 'full' else len(self._paths)
        return paths * tables.channels * tables.num_shifts * k * k * (height + k - 1) * (width + k - 1)

    def macs_executed(self, height: int, width: int) -> int:
        """Count the multiply-accumulates per image of the convolutions that run, strips cropped to the map."""
        tables, k = self.tables, self.tables.small_kernel
        along, across = tables.strip_padding, (k // 2, k // 2)
        branches = [((k, tables.strip_length), along + across), ((tables.strip_length, k), across + along)]
        if self.form != 'full':
            branches.append(((k, k), across + across))
        return tables.channels * sum(depthwise_macs(size, padding, height, width) for size, padding in branches)

    def extra_repr(self) -> str:
        tables = self.tables
        return (
            f'{self.in_channels}, kernel_size={tables.kernel_size}, small_kernel={tables.small_kernel}, '
            f'num_edges={tables.num_edges}, rep={tables.channels}, form={self.form}'
        )


def _renew_tables(module: ShiftWiseConv2d, _incompatible_keys: object = None) -> None:
    """Make the table buffers anew, on the device of the parameters.

    They are derived data and in no checkpoint, so whatever gives the layer its weights (initialisation, or loading into
    a module that was materialised from the meta device) must give it its tables too.
    """
    like = next(module.parameters())
    order = np.concatenate(channel_split(module.in_channels, module.ghost_ratio, module.even_split))
    module.channel_order = torch.as_tensor(order, device=like.device)
    if module.form != 'full':
        module.connections = torch.as_tensor(module.tables.connection_matrix()).to(like)


def _select_channels(x: Tensor, index: Tensor) -> Tensor:
    """Select channels and keep the memory format; ``index_select`` alone would turn channels_last into contiguous."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return x.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)
    return x.index_select(1, index)
