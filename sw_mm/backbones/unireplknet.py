"""UniRepLKNet: large kernels, each with dilated small ones beside it, and blocks with small kernels between."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from torch import nn

from sw_mm.kernels.arguments import is_integer
from sw_mm.layers import DepthwiseConv2d, DilatedReparamConv2d, GRNBlock, check_deploy, overlapping_downsampling

from .base import NUM_STAGES, Backbone, Stage, linear_drop_paths, norm_factory, resolve_arch

# The largest kernel that is trained as it is; larger ones have branches beside them.
PLAIN = 5


class UniRepLKNet(Backbone):
    """Backbone of "UniRepLKNet: A Universal Perception Large-Kernel ConvNet for Audio, Video, Point Cloud, Time-Series
    and Image Recognition" (CVPR 2024, arXiv:2311.15599).

    Every block mixes positions with one depthwise kernel. Up to 5x5 it is a plain convolution; a larger one is trained
    with dilated small kernels beside it (section 3.1). Squeeze-excitation, two linear layers with GELU and GRN between,
    and batch norms make up the rest of a block; what stands between the stages has layer norms.

    Parameter names are those of the official code (https://github.com/AILab-CVPR/UniRepLKNet), so an official state
    dict loads by key, its head aside, in the training and in the deploy form. That code folds all that is linear: both
    deploy forms are the same. Per block, they keep one depthwise convolution, the gates, two linear layers and GRN's
    ``gamma``.

    As in official code, GRN's parameters have four axes, so rules that spare one-dimensional parameters do not spare
    them from weight decay; ``custom_keys={'.act.1.': dict(decay_mult=0)}`` in ``paramwise_cfg`` does.

    Args:
        arch: ``'a'``, ``'f'``, ``'p'``, ``'n'``, ``'t'``, ``'s'``, ``'b'``, ``'l'`` or ``'xl'``, in any case; or a dict
            with ``depths`` and ``channels``, four integers each.
        in_channels: Channels of the input image.
        kernel_size: Side of the kernels, odd, or 0 for blocks that do not mix positions: one for all, or four, each one
            for its stage or a sequence of one for each block. None takes the official ones: 3 in stage 0, 13 in the
            others, but in stage 2 only in every second of 18 blocks or every third of 27; the rest of it has 3.
        branches: By the side of a large kernel, the side and dilation of the kernels beside it, such as
            ``{13: ((5, 1), (7, 2), (3, 3))}``. Sides that it lacks have the official ones, which are known for 7 to 17.
            A side of 5 or less is given branches by being in it.
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
        deploy: Build the form that ``switch_to_deploy`` leaves; True and ``'official'`` are the same here.

    Raises:
        ValueError: If an argument is of another type or out of range; the message names it.
    """

    arch_settings: ClassVar[dict[str, dict]] = {
        'a': dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320)),
        'f': dict(depths=(2, 2, 6, 2), channels=(48, 96, 192, 384)),
        'p': dict(depths=(2, 2, 6, 2), channels=(64, 128, 256, 512)),
        'n': dict(depths=(2, 2, 8, 2), channels=(80, 160, 320, 640)),
        't': dict(depths=(3, 3, 18, 3), channels=(80, 160, 320, 640)),
        's': dict(depths=(3, 3, 27, 3), channels=(96, 192, 384, 768)),
        'b': dict(depths=(3, 3, 27, 3), channels=(128, 256, 512, 1024)),
        'l': dict(depths=(3, 3, 27, 3), channels=(192, 384, 768, 1536)),
        'xl': dict(depths=(3, 3, 27, 3), channels=(256, 512, 1024, 2048)),
    }

    def __init__(
        self,
        arch: str | dict = 't',
        in_channels: int = 3,
        kernel_size: int | Sequence[int | Sequence[int]] | None = None,
        branches: Mapping[int, Sequence[tuple[int, int]]] | None = None,
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
        check_deploy(deploy)
        settings = resolve_arch(arch, self.arch_settings)
        depths, channels = settings['depths'], settings['channels']
        if min(channels) < 4:
            raise ValueError(f"arch['channels'] must be at least 4; got {list(channels)}")
        kernel_sizes = official_kernels(depths) if kernel_size is None else _one_per_block(kernel_size, depths)
        if branches is not None and not isinstance(branches, Mapping):
            raise ValueError(f'branches must be a dict from sides of large kernels to pairs; got {branches!r}')
        branches = branches or {}
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
        folded = deploy is not False

        def mixer(c: int, size: int) -> nn.Module:
            if size == 0:
                return nn.Identity()
            if size <= PLAIN and size not in branches:
                return DepthwiseConv2d(c, size, bias=folded)
            return DilatedReparamConv2d(c, size, branches.get(size), norm_layer=norm_layer, deploy=deploy)

        def block(stage: int, index: int) -> nn.Module:
            return GRNBlock(
                mixer(channels[stage], kernel_sizes[stage][index]),
                channels[stage],
                norm_layer,
                drop_path=drop_paths[stage][index],
                layer_scale_init_value=layer_scale_init_value,
                mixer_name='dwconv',
                deploy=folded,
            )

        self.downsample_layers = overlapping_downsampling(in_channels, channels)
        self.stages = nn.ModuleList(
            Stage(*(block(stage, index) for index in range(depth)), with_cp=with_cp)
            for stage, depth in enumerate(depths)
        )
        self.add_output_norms(channels)
        self.finish()

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold every block for inference, in place and exactly; a second call changes nothing.

        Args:
            form: ``'full'`` or ``'official'``, which are the same here: official code folds all that is linear.

        Raises:
            ValueError: If ``form`` is neither.
        """
        super().switch_to_deploy('full' if form == 'official' else form)


def official_kernels(depths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the side of the kernel of every block of every stage, as in the official nets.

    In stage 2 every block has a large kernel, from 18 blocks on every second one, from 27 on every third, and so on.

    Args:
        depths: Number of blocks of each stage.
    """
    distance = max(depths[2] // 9, 1)
    third = tuple(13 if index % distance == 0 else 3 for index in range(depths[2]))
    return (3,) * depths[0], (13,) * depths[1], third, (13,) * depths[3]


def _one_per_block(kernel_size: object, depths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return the side of the kernel of every block of every stage."""
    stages = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * NUM_STAGES
    if len(stages) == NUM_STAGES:
        sizes = tuple(
            tuple(stage) if isinstance(stage, Sequence) else (stage,) * depth
            for stage, depth in zip(stages, depths, strict=True)
        )
        odd = all(is_integer(size) and (size == 0 or (size > 0 and size % 2)) for stage in sizes for size in stage)
        if odd and tuple(map(len, sizes)) == tuple(depths):
            return tuple(tuple(map(int, stage)) for stage in sizes)
    raise ValueError(
        f'kernel_size must be an odd number or 0, or {NUM_STAGES} of them, one for each stage, each of which may be a '
        f'sequence with one for each of its {tuple(depths)} blocks; got {kernel_size!r}'
    )
