"""ShiftWiseNet: UniRepLKNet's or SLaK's architecture around shift-wise convolutions."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import nn

from sw_mm.layers import GRNBlock, LayerNormBlock, ShiftWiseConv2d, overlapping_downsampling, patch_downsampling

from .base import Backbone, Stage, linear_drop_paths, norm_factory, one_per_stage, resolve_arch, scale_channels


class ShiftWiseNet(Backbone):
    """Backbone of "ShiftwiseConv: Small Convolutional Kernel with Large Kernel Effect" (CVPR 2025, arXiv:2401.12736).

    Every block mixes positions with a ``ShiftWiseConv2d``: two strips, ``kernel_size`` long and ``small_kernel`` wide,
    put together from small filters. There are two designs around it:

    - ``v2`` is UniRepLKNet's: overlapping 3x3 stem and downsampling, batch norm, squeeze-excitation, GRN.
    - ``v1`` is SLaK's and ConvNeXt's: patches of 4x4 and 2x2, layer norm.

    Parameter names are those of the official code (https://github.com/lidc54/shift-wiseConv), so an official state
    dict loads by key, its head aside. ``ShiftWiseNet()`` is the released net.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'`` (v2), one of these behind ``'v1-'`` (v1), in any case;
            or a dict with ``depths`` and ``channels``, four integers each, and ``design``, ``'v2'`` (default) or
            ``'v1'``.
        in_channels: Channels of the input image.
        width_factor: All channels are ``int(channels * width_factor)``.
        kernel_size: Long side of the strips, one for each stage or one for all.
        small_kernel: Short side of the strips, odd.
        ghost_ratio: Part of the channels, in [0, 1), that bypasses the operator.
        num_paths: Parallel filter banks that are summed (the paper's *Rep*).
        num_edges: Independent connection tables (the paper's *edges*).
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: Start of the layer scale; 0 means no layer scale.
        out_indices: See ``Backbone``.
        frozen_stages: See ``Backbone``.
        norm_eval: See ``Backbone``.
        gap_before_final_norm: See ``Backbone``.
        with_cp: Whether to keep no activation inside blocks, and compute them again in the backward pass.
        norm_cfg: mmcv's config of every batch norm; running statistics are a must. Official code uses SyncBN; mmengine
            turns it into BN wherever training is not distributed.
        init_cfg: mmengine's initialisation on top of the net's own.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    arch_settings: ClassVar[dict[str, dict]] = {
        'tiny': dict(depths=(3, 3, 18, 3), channels=(80, 160, 320, 640)),
        'small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
        'base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
        'large': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
        'v1-tiny': dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768), design='v1'),
        'v1-small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768), design='v1'),
        'v1-base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024), design='v1'),
        'v1-large': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536), design='v1'),
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        width_factor: float = 1.0,
        kernel_size: int | Sequence[int] = (51, 49, 47, 13),
        small_kernel: int = 3,
        ghost_ratio: float = 0.23,
        num_paths: int = 2,
        num_edges: int = 4,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006 (never changed; configs read the signature)
        init_cfg: dict | list[dict] | None = None,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        settings = resolve_arch(arch, self.arch_settings, optional=['design'])
        depths, design = settings['depths'], settings.get('design', 'v2')
        if design not in ('v1', 'v2'):
            raise ValueError(f"arch['design'] must be 'v1' or 'v2'; got {design!r}")
        channels = scale_channels(settings['channels'], width_factor, least=4)
        kernel_sizes = one_per_stage('kernel_size', kernel_size)
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
        if design == 'v1':
            self.min_size = 32  # its layers between stages have no padding
        norm_layer = norm_factory(norm_cfg)
        drop_paths = linear_drop_paths(drop_path_rate, depths)

        def block(stage: int, index: int) -> nn.Module:
            mixer = ShiftWiseConv2d(
                channels[stage],
                kernel_sizes[stage],
                small_kernel,
                num_paths=num_paths,
                num_edges=num_edges,
                ghost_ratio=ghost_ratio,
                even_split=design == 'v2',
                norm_layer=norm_layer,
                deploy=deploy,
            )
            common = dict(
                drop_path=drop_paths[stage][index], layer_scale_init_value=layer_scale_init_value, deploy=deploy is True
            )
            if design == 'v1':
                return LayerNormBlock(mixer, channels[stage], **common)
            return GRNBlock(mixer, channels[stage], norm_layer, **common)

        entries = overlapping_downsampling if design == 'v2' else patch_downsampling
        self.downsample_layers = entries(in_channels, channels)
        self.stages = nn.ModuleList(
            Stage(*(block(stage, index) for index in range(depth)), with_cp=with_cp)
            for stage, depth in enumerate(depths)
        )
        self.add_output_norms(channels)
        self.finish()
