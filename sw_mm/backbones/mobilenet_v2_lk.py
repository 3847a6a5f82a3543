"""MobileNetV2 with large depthwise kernels."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sw_mm.kernels.arguments import is_integer, number_in, positive_integer
from sw_mm.layers import ConvNorm, DepthwiseConv2d, LargeDepthwiseConv2d, check_deploy

from .base import Backbone, Stage, norm_factory

# Expansion, channels, number of blocks and stride of the first one, for layer1 to layer7: table 2 of arXiv:1801.04381.
LAYERS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The layers in their four resolutions, as far as the last one of each; that one makes the map of the stage.
ENTRIES = (('conv1', 'layer1'), (), ('layer4',), ('layer6',))
STAGES = ('layer2', 'layer3', 'layer5', 'layer7')


class BranchedDepthwiseConv2d(LargeDepthwiseConv2d):
    """``LargeDepthwiseConv2d`` with a ReLU6 behind the sum of its branches."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(super().forward(x), inplace=True)


class InvertedResidual(nn.Module):
    """Layers one behind the other, with a shortcut around them or without.

    Args:
        *layers: 1x1 convolution that expands the channels (left out where there is nothing to expand), depthwise
            convolution, 1x1 convolution that projects.
        shortcut: Whether the input is added to the output.
    """

    def __init__(self, *layers: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold in place; a second call changes nothing.

        Args:
            form: ``'full'`` folds all batch norms, ``'official'`` only the branches of a depthwise layer.
        """
        for layer in self.conv:
            if form == 'full' or isinstance(layer, LargeDepthwiseConv2d):
                layer.switch_to_deploy()


class LargeKernelMobileNetV2(Backbone):
    """MobileNetV2 whose 3x3 depthwise convolutions are replaced by larger or dilated ones.

    It is the net on which "Scaling Up Your Kernels to 31x31" (RepLKNet, CVPR 2022, arXiv:2203.06717) shows what large
    kernels need: shortcuts (guideline 2: ``shortcut``), a small kernel to start with (3: ``small_kernel=3``), no large
    map (5: ``large_kernels='last_stage'``), and no holes (dense against dilated kernels: ``dw_dilation``). The default
    is guideline 2's net: 13x13 everywhere, with shortcuts and no small kernel.

    The four stages are the maps at 1/4, 1/8, 1/16 and 1/32 of the image's size, with 24, 32, 96 and 320 channels: those
    that mmsegmentation's DeepLabV3+ takes from its own MobileNetV2 as ``out_indices=(1, 2, 4, 6)``. Dense outputs are
    these maps; no norm is added. For classification the last one goes through a 1x1 convolution to 1280 channels and is
    averaged over the positions.

    There is neither official code nor weights. Parameter names are those of mmpretrain's and mmsegmentation's
    MobileNetV2, so with ``kernel_size=3`` their weights load by key; without a small kernel, names stay the same for
    every kernel size. The ``'official'`` deploy form merges the branches of the depthwise layers and leaves all else;
    the full form folds every batch norm.

    Args:
        in_channels: Channels of the input image.
        width_factor: All channels are multiplied by it and rounded to a multiple of 8, at least 8 and nowhere more
            than 10 % down. The 1280 channels at the end grow with it, but do not shrink.
        kernel_size: Side of the large kernels, odd; the paper has 3, 7, 9 and 13.
        small_kernel: Side of the small kernels beside them, odd, with the same stride and dilation; None, or a number
            that is not below ``kernel_size``, means none.
        large_kernels: Which depthwise layers are large, the others have 3x3: ``'all'``; ``'last_stage'``, those of the
            last stage behind the one that halves the resolution; ``'last_block'``, only the very last.
        shortcut: Whether blocks that keep the shape of their map have an identity shortcut.
        dw_dilation: Distance of neighbouring taps in those layers: ``kernel_size=3, dw_dilation=6`` reaches as far as
            ``kernel_size=13``.
        output_stride: 32, 16 or 8. Below 32, layers that would halve the resolution further keep it, and the first
            block of each layer from there on is dilated in turn by 2, then 4, as in mmsegmentation, where the other
            blocks are not dilated. 8 is what DeepLabV3+ wants.
        out_indices: See ``Backbone``.
        frozen_stages: See ``Backbone``.
        norm_eval: See ``Backbone``.
        gap_before_final_norm: See ``Backbone``. The final norm is that of the convolution to 1280 channels here, and
            comes before the average.
        with_cp: Whether to keep no activation inside blocks, and compute them again in the backward pass.
        norm_cfg: mmcv's config of every batch norm; running statistics are a must.
        init_cfg: mmengine's initialisation on top of the net's own.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    def __init__(
        self,
        in_channels: int = 3,
        width_factor: float = 1.0,
        kernel_size: int = 13,
        small_kernel: int | None = None,
        large_kernels: Literal['all', 'last_stage', 'last_block'] = 'all',
        shortcut: bool = True,
        dw_dilation: int = 1,
        output_stride: Literal[32, 16, 8] = 32,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006 (never changed; configs read the signature)
        init_cfg: dict | list[dict] | None = None,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        check_deploy(deploy)
        width_factor = number_in('width_factor', width_factor, 0, math.inf)
        if width_factor == 0:
            raise ValueError('width_factor must be above 0; got 0')
        kernel_size = positive_integer('kernel_size', kernel_size)
        if small_kernel is not None and positive_integer('small_kernel', small_kernel) >= kernel_size:
            small_kernel = None
        dw_dilation = positive_integer('dw_dilation', dw_dilation)
        if large_kernels not in ('all', 'last_stage', 'last_block'):
            raise ValueError(f"large_kernels must be 'all', 'last_stage' or 'last_block'; got {large_kernels!r}")
        if not is_integer(output_stride) or output_stride not in (32, 16, 8):
            raise ValueError(f'output_stride must be 32, 16 or 8; got {output_stride!r}')
        super().__init__(
            (3, 3, 7, 4),
            in_channels=in_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            gap_before_final_norm=gap_before_final_norm,
            init_cfg=init_cfg,
        )
        norm_layer = norm_factory(norm_cfg)
        folded = deploy is True

        def unit(conv: nn.Conv2d, act: bool = True) -> ConvNorm:
            norm = None if folded else norm_layer(conv.out_channels)
            return ConvNorm(conv, norm, nn.ReLU6(inplace=True) if act else None)

        def depthwise(channels: int, large: bool, stride: int, dilation: int) -> nn.Module:
            if not large:
                return unit(DepthwiseConv2d(channels, 3, stride, dilation, bias=folded))
            dilation *= dw_dilation
            if small_kernel is None:
                return unit(DepthwiseConv2d(channels, kernel_size, stride, dilation, bias=folded))
            return BranchedDepthwiseConv2d(
                channels, kernel_size, stride, dilation, small_kernel, norm_layer=norm_layer, deploy=deploy
            )

        def block(c_in: int, c_out: int, expansion: int, large: bool, stride: int, dilation: int) -> nn.Module:
            hidden = c_in * expansion
            expand = [] if expansion == 1 else [unit(nn.Conv2d(c_in, hidden, 1, bias=folded))]
            return InvertedResidual(
                *expand,
                depthwise(hidden, large, stride, dilation),
                unit(nn.Conv2d(hidden, c_out, 1, bias=folded), act=False),
                shortcut=shortcut and stride == 1 and c_in == c_out,
            )

        width = _make_divisible(32 * width_factor)
        self.conv1 = unit(nn.Conv2d(in_channels, width, 3, stride=2, padding=1, bias=folded))
        reduction, dilation = 2, 1
        for number, (expansion, channels, depth, stride) in enumerate(LAYERS, start=1):
            if stride == 2 and reduction == output_stride:
                stride, dilation = 1, 2 * dilation
            reduction *= stride
            channels, blocks = _make_divisible(channels * width_factor), []
            for index in range(depth):
                large = (
                    large_kernels == 'all'
                    or number == 7
                    or (large_kernels == 'last_stage' and number == 6 and index > 0)
                )
                blocks.append(block(width, channels, expansion, large, *((1, 1) if index else (stride, dilation))))
                width = channels
            self.add_module(f'layer{number}', Stage(*blocks, with_cp=with_cp))
        if self.gap_before_final_norm:
            self.conv2 = unit(nn.Conv2d(width, int(1280 * max(width_factor, 1.0)), 1, bias=folded))
        self.finish()

    @property
    def stages(self) -> list[Stage]:
        """The layers that make the maps of the four stages; ``entry`` gives what stands between them."""
        return [self.get_submodule(name) for name in STAGES]

    def entry(self, stage: int) -> nn.Module:
        """Return the layers between the map of a stage, its last layer left out, and the map before it."""
        return nn.Sequential(*(self.get_submodule(name) for name in ENTRIES[stage]))

    def output(self, x: Tensor, stage: int) -> Tensor:
        """Turn the raw map of a stage into what the backbone returns."""
        return self.conv2(x).mean(dim=(2, 3)) if self.gap_before_final_norm else x

    def reset_parameters(self) -> None:
        """Draw fresh weights: normal with variance 2 / (C_out * kh * kw) for convolutions, zero for their biases.

        This is the initialisation of torchvision and mmpretrain; groups do not count.
        """
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rate decay.

        ``conv1`` has depth 0, ``layer1`` to ``layer7`` have 1 to 7, ``conv2`` and all outside the backbone 8.
        ``num_layers`` is 9, one more than the largest depth, as in mmpretrain.

        Args:
            param_name: Name of the parameter in the model.
            prefix: Name of the backbone in the model, with its dot.

        Returns:
            The depth and ``num_layers``.
        """
        names = ['conv1', *(f'layer{number}' for number in range(1, len(LAYERS) + 1))]
        depth = len(names)
        if param_name.startswith(prefix):
            part = param_name[len(prefix) :].split('.')[0]
            depth = names.index(part) if part in names else depth
        return depth, len(names) + 1

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold in place and exactly; a second call changes nothing.

        Args:
            form: ``'full'`` folds every batch norm; ``'official'`` merges the branches of depthwise layers only.

        Raises:
            ValueError: If ``form`` is neither.
        """
        super().switch_to_deploy(form)  # which checks the form, and knows the stages only
        for layer in self.children():
            if isinstance(layer, Stage):
                for block in layer:
                    block.switch_to_deploy(form)
            elif form == 'full':
                layer.switch_to_deploy()


def _make_divisible(channels: float) -> int:
    """Round to a multiple of 8: at least 8, and nowhere more than 10 % down."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
