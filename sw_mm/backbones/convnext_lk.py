"""ConvNeXt with large kernels, and its design around any layer that mixes positions."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from torch import nn

from sw_mm.layers import DepthwiseConv2d, LargeDepthwiseConv2d, LayerNormBlock, check_deploy, patch_downsampling

from .base import Backbone, Stage, linear_drop_paths, norm_factory, one_per_stage, resolve_arch


class ConvNeXtBackbone(Backbone):
    """ConvNeXt's design: patches of 4x4 and 2x2, layer norms, and two linear layers in each block behind a mixer.

    Args:
        depths: Number of blocks of each stage.
        channels: Channels of each stage.
        mixer: Makes the layer that mixes positions, from the number of the stage; it keeps the shape of the map.
        mixer_name: Name of that layer in the state dict.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: Start of the layer scale; 0 means no layer scale.
        with_cp: Whether to keep no activation inside blocks, and compute them again in the backward pass.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.
        **kwargs: See ``Backbone``.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    min_size = 32  # the layers between stages have no padding

    def __init__(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        mixer: Callable[[int], nn.Module],
        *,
        mixer_name: str = 'large_kernel',
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        with_cp: bool = False,
        deploy: bool | Literal['official'] = False,
        **kwargs,
    ) -> None:
        check_deploy(deploy)
        super().__init__(depths, **kwargs)
        drop_paths = linear_drop_paths(drop_path_rate, depths)

        def block(stage: int, index: int) -> nn.Module:
            return LayerNormBlock(
                mixer(stage),
                channels[stage],
                drop_path=drop_paths[stage][index],
                layer_scale_init_value=layer_scale_init_value,
                mixer_name=mixer_name,
                deploy=deploy is True,
            )

        self.downsample_layers = patch_downsampling(self.in_channels, channels)
        self.stages = nn.ModuleList(
            Stage(*(block(stage, index) for index in range(depth)), with_cp=with_cp)
            for stage, depth in enumerate(depths)
        )
        self.add_output_norms(channels)
        self.finish()


class LargeKernelConvNeXt(ConvNeXtBackbone):
    """ConvNeXt whose 7x7 depthwise convolutions are replaced by ones of up to 31x31.

    It is the comparison net of "Scaling Up Your Kernels to 31x31" (RepLKNet, CVPR 2022, arXiv:2203.06717, section 5)
    and of SLaK (arXiv:2207.03620). There are two kinds of mixers:

    - With a ``small_kernel`` each is a large and a small kernel, both with a batch norm, as in SLaK's official code
      (https://github.com/VITA-Group/SLaK), whose parameter names hold. They fold into one convolution.
    - Without, each is the convolution with bias of ConvNeXt itself (https://github.com/facebookresearch/ConvNeXt).
      ``kernel_size=7`` then makes the original net, and official weights of it load by key, head aside; SLaK's
      distilled ConvNeXt ("L2S") too. Its ``'official'`` deploy form is the training form.

    Args:
        arch: ``'tiny'``, ``'small'`` or ``'base'``, in any case; or a dict with ``depths`` and ``channels``, four
            integers each.
        in_channels: Channels of the input image.
        kernel_size: Side of the large kernels, odd, one for each stage or one for all.
        small_kernel: Side of the small kernels, odd; stages whose large kernel is not larger have none. None makes
            plain convolutions everywhere.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value: Start of the layer scale; 0 means no layer scale.
        out_indices: See ``Backbone``.
        frozen_stages: See ``Backbone``.
        norm_eval: See ``Backbone``.
        gap_before_final_norm: See ``Backbone``.
        with_cp: Whether to keep no activation inside blocks, and compute them again in the backward pass.
        norm_cfg: mmcv's config of every batch norm; running statistics are a must. There is none without a
            ``small_kernel``.
        init_cfg: mmengine's initialisation on top of the net's own.
        deploy: Build the form that ``switch_to_deploy`` leaves: the full one if True, or the ``'official'`` one.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    arch_settings: ClassVar[dict[str, dict]] = {
        'tiny': dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
        'small': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
        'base': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        kernel_size: int | Sequence[int] = (31, 29, 27, 13),
        small_kernel: int | None = 5,
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
        settings = resolve_arch(arch, self.arch_settings)
        channels, kernel_sizes = settings['channels'], one_per_stage('kernel_size', kernel_size)
        norm_layer = norm_factory(norm_cfg)

        def mixer(stage: int) -> nn.Module:
            if small_kernel is None:
                return DepthwiseConv2d(channels[stage], kernel_sizes[stage])
            return LargeDepthwiseConv2d(
                channels[stage],
                kernel_sizes[stage],
                small_kernel=small_kernel,
                norm_layer=norm_layer,
                deploy=deploy,
            )

        super().__init__(
            settings['depths'],
            channels,
            mixer,
            mixer_name='dwconv' if small_kernel is None else 'large_kernel',
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
