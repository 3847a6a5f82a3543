"""What every backbone has in common: outputs, freezing, initialisation, layer depths, the switch to the deploy form."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from sw_mm.kernels.arguments import is_integer, number_in, positive_integer
from sw_mm.layers import LayerNorm2d, NormFactory, checkpoint, set_norm_eval

NUM_STAGES = 4


class Stage(nn.Sequential):
    """The blocks of one resolution, each under gradient checkpointing if ``with_cp``."""

    def __init__(self, *blocks: nn.Module, with_cp: bool = False) -> None:
        super().__init__(*blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = checkpoint(block, x) if self.with_cp and torch.is_grad_enabled() else block(x)
        return x


class Backbone(BaseModule):
    """Four stages of blocks, each behind a layer that reduces the resolution.

    A family fills ``downsample_layers`` and ``stages`` (or overrides ``entry``), calls ``add_output_norms``, and ends
    its constructor with ``finish``. Each of the four ``stages`` is called once per forward pass and returns the raw
    (N, C, H, W) map, before any output norm, in the deploy form too.

    There are two sets of outputs:

    - **classification**, if ``gap_before_final_norm`` and the last stage is the only output: its map is averaged over
      the positions and goes through the layer norm ``norm``; the output is one (N, C) tensor.
    - **dense** otherwise: the map of each chosen stage goes through its own channel layer norm ``norm{i}``.

    Args:
        depths: Number of blocks of each stage; the only use here is ``get_layer_depth``.
        in_channels: Channels of the input image.
        out_indices: Stage, or ascending stages, whose maps are returned; -1 is the last.
        frozen_stages: The first so many stages, with the layers that lead to them (so 1 means stem and stage 0), get
            no gradient and stay in eval mode; 0 or less freezes nothing.
        norm_eval: Whether batch norms keep to their running statistics in training.
        gap_before_final_norm: Whether to choose the classification outputs where the last stage is the only one.
        init_cfg: mmengine's initialisation on top of the net's own.

    Raises:
        ValueError: If ``in_channels``, ``out_indices`` or ``frozen_stages`` is of another type or out of range.

    Attributes:
        min_size: Least height and width of an image; a family whose layers need more sets it.
    """

    min_size = 1

    downsample_layers: nn.ModuleList
    stages: nn.ModuleList

    def __init__(
        self,
        depths: Sequence[int],
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        gap_before_final_norm: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not is_integer(frozen_stages) or not -1 <= frozen_stages <= NUM_STAGES:
            raise ValueError(
                f'frozen_stages must be the number of stages to freeze, at most {NUM_STAGES}, or -1 for none; '
                f'got {frozen_stages!r}'
            )
        self.depths = tuple(depths)
        self.in_channels = positive_integer('in_channels', in_channels)
        self.out_indices = _check_out_indices(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.gap_before_final_norm = gap_before_final_norm and self.out_indices == (NUM_STAGES - 1,)

    def add_output_norms(self, channels: Sequence[int]) -> None:
        """Add ``norm``, or ``norm{i}`` for every stage i that is returned."""
        if self.gap_before_final_norm:
            self.norm = nn.LayerNorm(channels[-1], eps=1e-6)
        else:
            for i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(channels[i]))

    def finish(self) -> None:
        """Initialise and freeze; the last line of every constructor."""
        self.reset_parameters()
        self.train(self.training)

    def entry(self, stage: int) -> nn.Module:
        """Return the layers between a stage and the one before it, or the image."""
        return self.downsample_layers[stage]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs.

        Args:
            x: Images, (N, in_channels, H, W).

        Returns:
            One tensor for each of ``out_indices``: a (N, C) vector for classification, else (N, C, h, w) maps.

        Raises:
            ValueError: If ``x`` has another number of axes or channels, or is smaller than ``min_size``.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'the input must have the shape (N, in_channels={self.in_channels}, H, W); got {tuple(x.shape)}'
            )
        if any(side < self.min_size for side in x.shape[2:]):
            raise ValueError(
                f'images must be at least {self.min_size} pixels high and wide, pad or enlarge them; '
                f'got {tuple(x.shape[2:])}'
            )
        outputs = []
        for i, stage in enumerate(self.stages):
            x = stage(self.entry(i)(x))
            if i in self.out_indices:
                outputs.append(self.output(x, i))
        return tuple(outputs)

    def output(self, x: Tensor, stage: int) -> Tensor:
        """Turn the raw map of a stage into what the backbone returns."""
        if self.gap_before_final_norm:
            return self.norm(x.mean(dim=(2, 3)))
        return self.get_submodule(f'norm{stage}')(x)

    def train(self, mode: bool = True) -> 'Backbone':
        """Set the mode, keeping frozen stages, and all batch norms if ``norm_eval``, in eval mode."""
        super().train(mode)
        if mode and self.norm_eval:
            set_norm_eval(self)
        for i in range(self.frozen_stages):
            for module in (self.entry(i), self.stages[i]):
                module.eval().requires_grad_(False)
        return self

    def reset_parameters(self) -> None:
        """Draw fresh weights: truncated normal (std 0.02) for convolutions and linear layers, zero for their biases.

        Every other layer starts as its own ``reset_parameters`` says; running statistics start afresh.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    def init_weights(self) -> None:
        """Draw fresh weights, then apply ``init_cfg``; a second call does nothing, as everywhere in mmengine."""
        if not self.is_init:
            self.reset_parameters()
        super().init_weights()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rate decay.

        The stem has depth 0, stage 0 has 1, downsampling and stage 1 have 2, the layer before stage 2 has 3, block b of
        stage 2 has 3 + b // 3, the last stage and the layer before it L, all else L + 1. L is one more than the depth
        of the last block of stage 2: 9 for 18 blocks, 12 for 27.

        Official code calls L ``num_layers`` and scales by ``decay ** (L + 1 - depth)``; mmpretrain scales by
        ``decay ** (num_layers - depth - 1)``. Hence ``num_layers = L + 2`` here, as in mmpretrain.

        Args:
            param_name: Name of the parameter in the model.
            prefix: Name of the backbone in the model, with its dot; other parameters have depth L + 1.

        Returns:
            The depth and ``num_layers``.
        """
        last = 4 + (self.depths[2] - 1) // 3
        depth = last + 1
        if param_name.startswith(prefix):
            part, *indices = param_name[len(prefix) :].split('.')
            if part == 'downsample_layers':
                depth = (0, 2, 3, last)[int(indices[0])]
            elif part == 'stages':
                depth = (1, 2, 3 + int(indices[1]) // 3, last)[int(indices[0])]
        return depth, last + 2

    def stage_ids(self) -> dict[nn.Parameter, int]:
        """Return the place of every parameter, for stage-wise learning rate decay.

        It is 0 in the stem and the layers between stages, s + 1 in the blocks of stage s; norms of the outputs have
        none.
        """
        ids = {}
        for stage, blocks in enumerate(self.stages):
            ids |= dict.fromkeys(self.entry(stage).parameters(), 0)
            for block in blocks:
                ids |= dict.fromkeys(block.parameters(), stage + 1)
        return ids

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold every block for inference, in place and exactly; a second call changes nothing.

        Args:
            form: ``'full'`` folds all that is linear; ``'official'`` gives the deploy form, and keys, of the official
                code.

        Raises:
            ValueError: If ``form`` is neither.
        """
        if form not in ('full', 'official'):
            raise ValueError(f"form must be 'full' or 'official'; got {form!r}")
        for stage in self.stages:
            for block in stage:
                block.switch_to_deploy(form)
        self.train(self.training)


def _check_out_indices(out_indices: int | Sequence[int]) -> tuple[int, ...]:
    """Return the stages as ascending numbers from 0."""
    given = tuple(out_indices) if isinstance(out_indices, Sequence) else (out_indices,)
    stages = tuple(int(i) % NUM_STAGES for i in given if is_integer(i) and -NUM_STAGES <= i < NUM_STAGES)
    if not given or len(stages) < len(given) or list(stages) != sorted(set(stages)):
        raise ValueError(
            f'out_indices must be one stage or ascending stages, each an integer between {-NUM_STAGES} and '
            f'{NUM_STAGES - 1}; got {out_indices!r}'
        )
    return stages


def resolve_arch(arch: str | dict, known: dict[str, dict], optional: Sequence[str] = ()) -> dict:
    """Return the settings of an architecture; ``depths`` and ``channels`` are checked.

    Args:
        arch: Name of a known architecture, in any case, or its settings.
        known: Settings of each architecture, by its name in lower case.
        optional: Settings beside ``depths`` and ``channels`` that may be given.

    Raises:
        ValueError: If the name is unknown, or a setting is missing, unknown or out of range.
    """
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ValueError(f'arch must be one of {sorted(known)}, or a dict; got {arch!r}')
        arch = known[arch.lower()]
    keys = set(arch) if isinstance(arch, dict) else set()
    if not {'depths', 'channels'} <= keys <= {'depths', 'channels', *optional}:
        also = f', and perhaps {", ".join(optional)}' if optional else ''
        raise ValueError(f'arch must be a name, or a dict with depths and channels{also}; got {arch!r}')
    return {**arch, **{key: one_per_stage(f'arch[{key!r}]', arch[key]) for key in ('depths', 'channels')}}


def scale_channels(channels: Sequence[int], width_factor: float, least: int = 1) -> tuple[int, ...]:
    """Return the channels of each stage, ``int(channels * width_factor)``.

    Args:
        channels: Channels before scaling.
        width_factor: What they are multiplied by.
        least: So many must be left.

    Raises:
        ValueError: If ``width_factor`` is no number, or leaves too few channels.
    """
    width_factor = number_in('width_factor', width_factor, 0, math.inf)
    scaled = tuple(int(c * width_factor) for c in channels)
    if min(scaled) < least:
        raise ValueError(f'channels must be at least {least} after width_factor={width_factor}; got {list(scaled)}')
    return scaled


def one_per_stage(name: str, values: int | Sequence[int]) -> tuple[int, ...]:
    """Return four positive integers; a single one stands for all.

    Args:
        name: What the message calls the values.
        values: One integer, or one for each stage.

    Raises:
        ValueError: If they are anything else.
    """
    given = tuple(values) if isinstance(values, Sequence) else (values,) * NUM_STAGES
    if len(given) != NUM_STAGES or not all(is_integer(value) and value > 0 for value in given):
        raise ValueError(
            f'{name} must be a positive integer, or {NUM_STAGES} of them, one for each stage; got {values!r}'
        )
    return tuple(map(int, given))


def linear_drop_paths(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Return the stochastic depth rate of every block of every stage: from 0 at the first to ``rate`` at the last.

    Args:
        rate: Rate of the last block.
        depths: Number of blocks of each stage.

    Raises:
        ValueError: If ``rate`` is no number in [0, 1).
    """
    rate = number_in('drop_path_rate', rate, 0, 1)
    total = sum(depths)
    rates = iter([rate * i / max(total - 1, 1) for i in range(total)])
    return [list(itertools.islice(rates, depth)) for depth in depths]


def norm_factory(norm_cfg: dict) -> NormFactory:
    """Return a function that makes the batch norm of ``norm_cfg`` for so many channels.

    Args:
        norm_cfg: mmcv's norm config, such as ``dict(type='SyncBN', requires_grad=True)``.

    Raises:
        ValueError: If ``norm_cfg`` is no config of a batch norm of (N, C, H, W) maps with running statistics. Only
            such a norm can be folded into its convolution.
    """
    try:
        norm = _build_norm(norm_cfg, 1)
    except (AssertionError, KeyError, TypeError) as error:
        raise ValueError(f"norm_cfg must be a config such as dict(type='BN'); got {norm_cfg!r}: {error}") from error
    if not isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm) or norm.running_mean is None:
        raise ValueError(
            'norm_cfg must be that of a batch norm of (N, C, H, W) maps with running statistics, such as '
            f"dict(type='BN') or dict(type='SyncBN'); got {norm_cfg!r}"
        )
    return partial(_build_norm, norm_cfg)


def _build_norm(norm_cfg: dict, channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]
