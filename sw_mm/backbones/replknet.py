"""RepLKNet: kernels up to 31x31, each with a small one beside it, and batch norms throughout."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sw_mm.kernels.arguments import number_in
from sw_mm.layers import (
    ConvNorm,
    DepthwiseConv2d,
    DropPath,
    LargeDepthwiseConv2d,
    NormFactory,
    check_deploy,
    checkpoint,
    set_weights,
)
from sw_mm.layers.reparam import norm_as_affine

from .base import Backbone, Stage, linear_drop_paths, norm_factory, one_per_stage, resolve_arch


def _unit(conv: nn.Conv2d, norm_layer: NormFactory, act: nn.Module | None = None) -> ConvNorm:
    """Put a batch norm behind a convolution, unless it has a bias: then it is one that has absorbed its norm."""
    return ConvNorm(conv, norm_layer(conv.out_channels) if conv.bias is None else None, act)


class _PreNormBlock(nn.Module, ABC):
    """``x + drop_path(pw2(between(pw1(norm(x)))))`` on (N, C, H, W) maps; ``pw1`` and ``pw2`` are 1x1 convolutions.

    A subclass makes all of these, in the order of the official state dict, and says in ``norm_name`` what its norm is
    called there.
    """

    norm_name: ClassVar[str]
    pw1: ConvNorm
    pw2: ConvNorm
    drop_path: DropPath

    def forward(self, x: Tensor) -> Tensor:
        norm = getattr(self, self.norm_name)
        y = self.pw1(x if norm is None else norm(x))
        return x + self.drop_path(self.pw2(self.between(y)))

    @abstractmethod
    def between(self, y: Tensor) -> Tensor:
        """Compute what stands between the 1x1 convolutions."""

    @torch.no_grad()
    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold in place and exactly; a second call changes nothing.

        Args:
            form: ``'full'`` folds every batch norm, also the one in front: the convolution behind it is 1x1, so no
                padding comes between. ``'official'`` merges the branches of a large kernel only.
        """
        if form == 'official':
            return
        norm = getattr(self, self.norm_name)
        if norm is not None:
            (weight, bias), (scale, shift) = self.pw1.folded(), norm_as_affine(norm)
            set_weights(self.pw1.conv, weight * scale[:, None, None], bias + weight.flatten(1) @ shift)
            self.pw1.bn = None
            setattr(self, self.norm_name, None)
        self.pw2.switch_to_deploy()


class RepLKBlock(_PreNormBlock):
    """Mixes positions: batch norm, 1x1 convolution, large depthwise convolution, 1x1 convolution, and a shortcut.

    Every convolution has its batch norm. A ReLU follows the first and the large one.

    Args:
        channels: C.
        large_kernel: The large depthwise convolution.
        norm_layer: Makes a batch norm of so many channels.
        drop_path: Probability of dropping the whole branch in training.
        deploy: Build the form that ``switch_to_deploy`` leaves.
    """

    norm_name = 'prelkb_bn'

    def __init__(
        self,
        channels: int,
        large_kernel: LargeDepthwiseConv2d,
        norm_layer: NormFactory,
        drop_path: float = 0.0,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        hidden = large_kernel.channels
        self.pw1 = _unit(nn.Conv2d(channels, hidden, 1, bias=deploy), norm_layer, nn.ReLU(inplace=True))
        self.pw2 = _unit(nn.Conv2d(hidden, channels, 1, bias=deploy), norm_layer)
        self.large_kernel = large_kernel
        self.prelkb_bn = None if deploy else norm_layer(channels)
        self.drop_path = DropPath(drop_path)

    def between(self, y: Tensor) -> Tensor:
        return F.relu(self.large_kernel(y), inplace=True)

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold in place and exactly, the branches of the large kernel in both forms; see the base class."""
        self.large_kernel.switch_to_deploy(form)
        super().switch_to_deploy(form)


class ConvFFN(_PreNormBlock):
    """Mixes channels: batch norm, two 1x1 convolutions with batch norms and a GELU between, and a shortcut.

    Args:
        channels: C; there are four times as many between the convolutions.
        norm_layer: Makes a batch norm of so many channels.
        drop_path: Probability of dropping the whole branch in training.
        deploy: Build the form that ``switch_to_deploy`` leaves.
    """

    norm_name = 'preffn_bn'

    def __init__(self, channels: int, norm_layer: NormFactory, drop_path: float = 0.0, deploy: bool = False) -> None:
        super().__init__()
        self.preffn_bn = None if deploy else norm_layer(channels)
        self.pw1 = _unit(nn.Conv2d(channels, 4 * channels, 1, bias=deploy), norm_layer)
        self.pw2 = _unit(nn.Conv2d(4 * channels, channels, 1, bias=deploy), norm_layer)
        self.drop_path = DropPath(drop_path)

    def between(self, y: Tensor) -> Tensor:
        return F.gelu(y)


class Stem(nn.Sequential):
    """Layers one behind the other, each but the first under gradient checkpointing if ``with_cp``."""

    def __init__(self, *layers: nn.Module, with_cp: bool = False) -> None:
        super().__init__(*layers)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self
        x = first(x)
        for layer in others:
            x = checkpoint(layer, x) if self.with_cp and torch.is_grad_enabled() else layer(x)
        return x


class RepLKStage(nn.Module):
    """The blocks of one resolution, and the norm of what the backbone returns, which the stage does not call itself.

    Args:
        blocks: The blocks.
        norm: The norm.
    """

    def __init__(self, blocks: Stage, norm: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks
        self.norm = norm

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class RepLKNet(Backbone):
    """Backbone of "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs" (CVPR 2022).

    Stages alternate between blocks with a large depthwise kernel and feed-forward blocks of 1x1 convolutions; a depth
    counts the pairs. All norms are batch norms. Source: arXiv:2203.06717, sections 3.1 and 4.1, and
    https://github.com/DingXiaoH/RepLKNet-pytorch, whose parameter names hold here: an official state dict loads by key,
    its head aside. ``RepLKNet()`` is the released RepLKNet-31B.

    There are two sets of outputs:

    - **classification**, if ``gap_before_final_norm`` and the last stage is the only output: its map goes through the
      batch norm ``norm`` and is averaged over the positions, in this order, as in the paper; the output is one (N, C)
      tensor.
    - **dense** otherwise: the map of each chosen stage, as it is or, with ``norm_intermediate_features``, through a
      batch norm of its own, ``stages.{i}.norm``. The next stage gets the map without that norm.

    The ``'official'`` deploy form merges small kernels into large ones and leaves all else, as in official code. The
    full form also folds every batch norm into its convolution: those behind convolutions, and the one at the start of
    each block, which official code cannot fold. What remains are the norms of the outputs: ``norm``, which belongs to
    the head behind the average, and ``stages.{i}.norm``.

    mmpretrain has a ``RepLKNet`` too, which keeps that name in its registry; this one is ``sw_mm.RepLKNet``. In
    mmpretrain's, every returned stage has its norm, asked for or not. So the final norm of a classifier is
    ``stages.3.norm`` instead of ``norm``, by which alone the names in its weight files for classification differ from
    the official ones, and dense outputs are not the official ones, except for XL. ``norm_cfg`` reaches no norm there.

    Args:
        arch: ``'31b'``, ``'31l'``, ``'xl'``, or ``'3'``, ``'7'``, ``'13'``, ``'25'`` of the study of kernel sizes, in
            any case; or a dict with ``depths`` and ``channels``, four integers each, and perhaps ``kernel_size`` and
            ``small_kernel`` (see below) and ``dw_ratio``, by which a block with a large kernel widens its map inside
            (1.5 in XL). What the dict leaves out is as in 31B.
        in_channels: Channels of the input image.
        kernel_size: Side of the large kernels, odd, one for each stage or one for all; None takes those of ``arch``.
        small_kernel: Side of the small kernels beside them, odd; None, or a number that is not below ``kernel_size``,
            means none. ``'auto'`` takes that of ``arch``: 5, but none in 3 and XL.
        drop_path_rate: Stochastic depth rate of the last pair of blocks; it grows linearly from 0 at the first.
        norm_intermediate_features: Whether dense outputs have batch norms. Official code has them for XL.
        out_indices: See ``Backbone``.
        frozen_stages: See ``Backbone``. A frozen stage includes its ``stages.{i}.norm``.
        norm_eval: See ``Backbone``.
        gap_before_final_norm: Whether to choose the classification outputs where the last stage is the only one. The
            name is that of other families; here the norm comes first.
        with_cp: Whether to keep no activation inside blocks, nor inside the layers of the stem behind the first, and
            compute them again in the backward pass.
        norm_cfg: mmcv's config of every batch norm; running statistics are a must. Official code uses SyncBN; mmengine
            turns it into BN wherever training is not distributed.
        init_cfg: mmengine's initialisation on top of the net's own.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    arch_settings: ClassVar[dict[str, dict]] = {
        name: dict(depths=(2, 2, 18, 2), channels=channels, kernel_size=sizes, small_kernel=small, dw_ratio=ratio)
        for name, channels, sizes, small, ratio in (
            ('31b', (128, 256, 512, 1024), (31, 29, 27, 13), 5, 1),
            ('31l', (192, 384, 768, 1536), (31, 29, 27, 13), 5, 1),
            ('xl', (256, 512, 1024, 2048), (27, 27, 27, 13), None, 1.5),
            ('3', (128, 256, 512, 1024), (3, 3, 3, 3), None, 1),
            ('7', (128, 256, 512, 1024), (7, 7, 7, 7), 5, 1),
            ('13', (128, 256, 512, 1024), (13, 13, 13, 13), 5, 1),
            ('25', (128, 256, 512, 1024), (25, 25, 25, 13), 5, 1),
        )
    }

    def __init__(
        self,
        arch: str | dict = '31b',
        in_channels: int = 3,
        kernel_size: int | Sequence[int] | None = None,
        small_kernel: int | Literal['auto'] | None = 'auto',
        drop_path_rate: float = 0.0,
        norm_intermediate_features: bool = False,
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
        settings = resolve_arch(arch, self.arch_settings, optional=['kernel_size', 'small_kernel', 'dw_ratio'])
        settings = {**self.arch_settings['31b'], **settings}
        depths, channels = settings['depths'], settings['channels']
        kernel_sizes = one_per_stage('kernel_size', settings['kernel_size'] if kernel_size is None else kernel_size)
        small_kernel = settings['small_kernel'] if small_kernel == 'auto' else small_kernel
        dw_ratio = number_in("arch['dw_ratio']", settings['dw_ratio'], 1 / min(channels), float('inf'))
        super().__init__(
            depths,
            in_channels=in_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            gap_before_final_norm=gap_before_final_norm,
            init_cfg=init_cfg,
        )
        self.arch = arch
        norm_layer = norm_factory(norm_cfg)
        drop_paths = linear_drop_paths(drop_path_rate, depths)
        folded = deploy is True

        def layer(conv: nn.Conv2d) -> ConvNorm:
            return _unit(conv, norm_layer, nn.ReLU(inplace=True))

        def depthwise(c: int, stride: int) -> ConvNorm:
            return layer(DepthwiseConv2d(c, 3, stride, bias=folded))

        def pointwise(c_in: int, c_out: int) -> ConvNorm:
            return layer(nn.Conv2d(c_in, c_out, 1, bias=folded))

        def pair(stage: int, drop_path: float) -> tuple[RepLKBlock, ConvFFN]:
            c, common = channels[stage], dict(drop_path=drop_path, deploy=folded)
            large_kernel = LargeDepthwiseConv2d(
                int(c * dw_ratio),
                kernel_sizes[stage],
                small_kernel=small_kernel,
                norm_layer=norm_layer,
                deploy=deploy,
            )
            return RepLKBlock(c, large_kernel, norm_layer, **common), ConvFFN(c, norm_layer, **common)

        def output_norm(stage: int) -> nn.Module:
            wanted = norm_intermediate_features and stage in self.out_indices and not self.gap_before_final_norm
            return norm_layer(channels[stage]) if wanted else nn.Identity()

        first = channels[0]
        self.stem = Stem(
            layer(nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=folded)),
            depthwise(first, stride=1),
            pointwise(first, first),
            depthwise(first, stride=2),
            with_cp=with_cp,
        )
        self.stages = nn.ModuleList(
            RepLKStage(
                Stage(*itertools.chain.from_iterable(pair(stage, rate) for rate in rates), with_cp=with_cp),
                output_norm(stage),
            )
            for stage, rates in enumerate(drop_paths)
        )
        self.transitions = nn.ModuleList(
            nn.Sequential(pointwise(c, d), depthwise(d, stride=2)) for c, d in itertools.pairwise(channels)
        )
        if self.gap_before_final_norm:
            self.norm = norm_layer(channels[-1])
        self.finish()

    def entry(self, stage: int) -> nn.Module:
        """Return the layers between a stage and the one before it, or the image."""
        return self.transitions[stage - 1] if stage else self.stem

    def output(self, x: Tensor, stage: int) -> Tensor:
        """Turn the raw map of a stage into what the backbone returns."""
        return self.norm(x).mean(dim=(2, 3)) if self.gap_before_final_norm else self.stages[stage].norm(x)

    def reset_parameters(self) -> None:
        """Draw fresh weights as torch does, layer by layer; official code has no initialisation of its own."""
        for module in self.modules():
            if module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rate decay.

        The stem has depth 0, stages 0 and 1 with the transitions behind them 1 and 2, block b of stage 2 has 3 + b // 4
        (two pairs a depth), the transition behind it the depth of its last block, the last stage L, all else, with the
        norms of the outputs, L + 1. L is 12 for the 36 blocks of stage 2 in all official nets, and else one more than
        the depth of the last of them. ``num_layers`` is L + 2, as ``Backbone.get_layer_depth`` explains.

        Args:
            param_name: Name of the parameter in the model.
            prefix: Name of the backbone in the model, with its dot; other parameters have depth L + 1.

        Returns:
            The depth and ``num_layers``.
        """
        last = 4 + (2 * self.depths[2] - 1) // 4
        depth = last + 1
        if param_name.startswith(prefix):
            part, *path = param_name[len(prefix) :].split('.')
            if part == 'stem':
                depth = 0
            elif part == 'transitions':
                depth = (1, 2, last - 1)[int(path[0])]
            elif part == 'stages' and path[1] == 'blocks':
                depth = (1, 2, 3 + int(path[2]) // 4, last)[int(path[0])]
        return depth, last + 2

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold for inference, in place and exactly; a second call changes nothing.

        Args:
            form: ``'full'`` folds every batch norm but those of the outputs; ``'official'`` gives the deploy form, and
                keys, of the official code: small kernels are merged into large ones.

        Raises:
            ValueError: If ``form`` is neither.
        """
        super().switch_to_deploy(form)
        if form == 'full':
            for layer in itertools.chain(self.stem, *self.transitions):
                layer.switch_to_deploy()
