"""SLaK: ConvNeXt with kernels of more than 51x51, decomposed into two strips."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import nn

from sw_mm.layers import LargeDepthwiseConv2d

from .base import norm_factory, one_per_stage, resolve_arch, scale_channels
from .convnext_lk import ConvNeXtBackbone


class SLaK(ConvNeXtBackbone):
    """Backbone of "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51" (ICLR 2023, arXiv:2207.03620).

    Every block mixes positions with a column of ``kernel_size x small_kernel``, a row of ``small_kernel x
    kernel_size`` and a square of ``small_kernel``, each a depthwise convolution with a batch norm of its own. The rest
    is ConvNeXt, 1.3 times as wide, which pays for itself where 40 % of the weights are zero; what is built here is
    dense, and sparse training keeps the zeros.

    Parameter names are those of the official code (https://github.com/VITA-Group/SLaK), so an official state dict
    loads by key, its head aside. ``SLaK()`` is the released net. Official code folds no decomposed kernel: the
    ``'official'`` deploy form differs from the training form only without ``decomposed``. The full form folds the
    square into the column, and all norms.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``, in any case; or a dict with ``depths`` and
            ``channels``, four integers each.
        in_channels: Channels of the input image.
        width_factor: All channels are ``int(channels * width_factor)``.
        kernel_size: Long side of the strips, odd, one for each stage or one for all.
        small_kernel: Short side of the strips and side of the square, odd. Without ``decomposed``, None or a number
            not below ``kernel_size`` leaves the square out; ``SLaK(width_factor=1, kernel_size=7, decomposed=False,
            small_kernel=100)`` is how the official code makes a ConvNeXt.
        decomposed: Whether two strips stand for a dense kernel; official code calls this ``Decom``, or ``LoRA``.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: Start of the layer scale; 0 means no layer scale.
        out_indices: See ``Backbone``.
        frozen_stages: See ``Backbone``.
        norm_eval: See ``Backbone``.
        gap_before_final_norm: See ``Backbone``.
        with_cp: Whether to keep no activation inside blocks, and compute them again in the backward pass.
        norm_cfg: mmcv's config of every batch norm; running statistics are a must. None leaves the norms out, as an
            ablation of the paper. Official code uses SyncBN; mmengine turns it into BN wherever training is not
            distributed.
        init_cfg: mmengine's initialisation on top of the net's own.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    arch_settings: ClassVar[dict[str, dict]] = {
        'tiny': dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
        'small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
        'base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
        'large': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        width_factor: float = 1.3,
        kernel_size: int | Sequence[int] = (51, 49, 47, 13),
        small_kernel: int | None = 5,
        decomposed: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        gap_before_final_norm: bool = True,
        with_cp: bool = False,
        norm_cfg: dict | None = dict(type='BN'),  # noqa: B006 (never changed; configs read the signature)
        init_cfg: dict | list[dict] | None = None,
        deploy: bool | Literal['official'] = False,
    ) -> None:
        settings = resolve_arch(arch, self.arch_settings)
        channels = scale_channels(settings['channels'], width_factor)
        kernel_sizes = one_per_stage('kernel_size', kernel_size)
        norm_layer = None if norm_cfg is None else norm_factory(norm_cfg)

        def mixer(stage: int) -> nn.Module:
            return LargeDepthwiseConv2d(
                channels[stage],
                kernel_sizes[stage],
                small_kernel=small_kernel,
                decomposed=decomposed,
                norm_layer=norm_layer,
                deploy=deploy,
            )

        super().__init__(
            settings['depths'],
            channels,
            mixer,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            gap_before_final_norm=gap_before_final_norm,
            with_cp=with_cp,
            init_cfg=init_cfg,
            deploy=deploy,
        )
        self.arch = arch
