"""What a state dict tells about its network: family, form, and the arguments that build it."""

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sw_mm import backbones
from sw_mm.backbones.base import NUM_STAGES
from sw_mm.backbones.unireplknet import PLAIN, official_kernels
from sw_mm.kernels import channel_split
from sw_mm.layers import DILATED_BRANCHES

Form = Literal['training', 'official', 'full']

DEPLOY: dict[Form, bool | str] = {'training': False, 'official': 'official', 'full': True}
BLOCK = re.compile(r'stages\.(\d+)\.(?:blocks\.)?(\d+)\.(.+)')
# Early ShiftWise code stored its connection tables; the released code generates them.
STORED_TABLE = re.compile(r'(?P<operator>.*large_kernel)\.(\w+\.)*(?P<table>rep|ghost|pad_hv|idx_identit|idx_out)1')
DILATED = re.compile(r'\.dil_conv_k(\d+)_(\d+)\.weight')  # UniRepLKNet's branches
RELEASED_SHIFTWISE = (51, 49, 47, 13)
# Arguments that names and shapes may fail to tell.
UNKNOWN = ('kernel_size', 'ghost_ratio', 'width_factor')


@dataclass(frozen=True)
class Description:
    """A network, as far as the names and shapes of its weights tell.

    Attributes:
        family: Name of its class in ``sw_mm.backbones``.
        form: The training form, or which deploy form.
        settings: Arguments that build it; an unknown one is None. What leaves no trace in weights (dilation, shortcuts,
            stochastic depth) is not in it. Empty if the weights are too odd or too few to say.
    """

    family: str
    form: Form
    settings: dict[str, Any]

    def __str__(self) -> str:
        form = 'training form' if self.form == 'training' else f'{self.form} deploy form'
        known = {key: value for key, value in self.settings.items() if key not in UNKNOWN or value is not None}
        name = f'{self.family} {known.pop("arch", "")}'.rstrip()
        listed = ', '.join(f'{key}={value}' for key, value in known.items())
        return f'{name} ({listed}), {form}' if listed else f'{name}, {form}'

    @property
    def complete(self) -> bool:
        """Whether the settings build the very network."""
        return bool(self.settings) and all(self.settings.get(name, 0) is not None for name in UNKNOWN)

    def config(self) -> dict[str, Any] | None:
        """Return the config of the backbone that the weights fit; None if they do not tell it."""
        if not self.complete:
            return None
        return dict(type=f'sw_mm.{self.family}', **self.settings, deploy=DEPLOY[self.form])

    def build(self) -> nn.Module:
        """Build the backbone on the meta device: names and shapes without memory."""
        with torch.device('meta'):
            return getattr(backbones, self.family)(**self.settings, deploy=DEPLOY[self.form])


class Net:
    """The names and shapes of a backbone's state dict.

    Attributes:
        shapes: Shape by name.
        parts: All that stands in the names behind the number of a block.
        depths: Number of blocks of each stage, as far as the last one that is there.
    """

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self.state_dict = state_dict
        self.shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
        found = [BLOCK.match(name) for name in state_dict]
        found = [block.groups() for block in found if block]
        self.parts = {part for _, _, part in found}
        self.depths = [
            1 + max((int(index) for stage, index, _ in found if int(stage) == number), default=-1)
            for number in range(NUM_STAGES)
        ]

    def first(self, *parts: str) -> str | None:
        """Return the first of some parts that blocks have."""
        return next((part for part in parts if part in self.parts), None)

    def sizes(self, part: str, axis: int, block: str = '{}.0') -> tuple[int, ...]:
        """Return the size along an axis of a weight in one block of each stage."""
        names = [f'stages.{block.format(stage)}.{part}' for stage in range(NUM_STAGES)]
        return tuple(self.shapes[name][axis] for name in names)

    def side(self, ending: str) -> int | None:
        """Return the side of the kernel of the first weight with such an ending."""
        return next((shape[2] for name, shape in self.shapes.items() if name.endswith(ending)), None)

    def outputs(self) -> dict[str, Any]:
        """Return the arguments that choose the outputs, by their norms; there is ``norm`` for classification."""
        stages = tuple(stage for stage in range(NUM_STAGES) if f'norm{stage}.weight' in self.shapes)
        return dict(out_indices=stages, gap_before_final_norm=False) if stages else {}

    def in_channels(self, first_layer: str) -> dict[str, int]:
        channels = self.shapes[first_layer][1]
        return {} if channels == 3 else dict(in_channels=channels)

    def layer_scale(self, form: Form) -> dict[str, int]:
        """Return the argument for no layer scale, where a form that keeps it has none."""
        return {} if 'gamma' in self.parts or form == 'full' else dict(layer_scale_init_value=0)


def describe(state_dict: Mapping[str, Tensor]) -> Description | None:
    """Recognise the network that a backbone's state dict belongs to; None if it is none of ours.

    Args:
        state_dict: Without the names of other parts, see ``split``. The values are looked at only in old ShiftWise
            tables; weights on the meta device will do.
    """
    net = Net(state_dict)
    for recognise, infer in FAMILIES:
        if found := recognise(net):
            family, form = found
            settings = {}
            with suppress(LookupError, ValueError):
                settings = infer(net, family, form)
            return Description(family, form, settings)
    return None


def _arch(family: str, depths: Sequence[int], channels: Sequence[int], **extra: Any) -> str | dict[str, Any]:
    """Return the argument ``arch``: the name of a known one, or a dict."""
    arch = dict(depths=tuple(depths), channels=tuple(channels), **extra)
    for name, known in getattr(backbones, family).arch_settings.items():
        if arch == known:
            return name
    return arch


# --------------------------------------------------------------------------------------------- ShiftWiseNet


def _is_shiftwise(net: Net) -> tuple[str, Form] | None:
    part = net.first('large_kernel.LoRAs.0.weight', 'large_kernel.LoRA.weight', 'large_kernel.horizontal')
    forms = {'large_kernel.LoRAs.0.weight': 'training', 'large_kernel.LoRA.weight': 'official'}
    return part and ('ShiftWiseNet', forms.get(part, 'full'))


def _shiftwise(net: Net, family: str, form: Form) -> dict[str, Any]:
    v2 = 'se.down.weight' in net.parts
    channels = net.sizes('pwconv1.1.weight' if v2 else 'pwconv1.weight', 1)
    if form == 'full':
        through, lengths = (net.sizes('large_kernel.horizontal', axis) for axis in (0, 3))
        small = net.shapes['stages.0.0.large_kernel.horizontal'][2]
        slots = tuple(length // small for length in lengths)
    else:
        filters = net.first('large_kernel.LoRAs.0.weight', 'large_kernel.LoRA.weight')
        through, small = net.sizes('large_kernel.bn_lora1.weight', 0), net.shapes[f'stages.0.0.{filters}'][2]
        slots = tuple(rows // c for rows, c in zip(net.sizes(filters, 0), through, strict=True))
    paths = sum(bool(re.fullmatch(r'large_kernel\.LoRAs\.\d+\.weight', part)) for part in net.parts)
    return dict(
        arch=_arch(family, net.depths, channels, **({} if v2 else dict(design='v1'))),
        **net.in_channels('downsample_layers.0.0.weight'),
        **_geometry(net, slots, small),
        small_kernel=small,
        ghost_ratio=_ghost_ratio(channels, through, v2),
        **({'num_paths': paths} if paths else {}),
        **net.layer_scale(form),
        **net.outputs(),
    )


def _geometry(net: Net, slots: Sequence[int], small: int) -> dict[str, Any]:
    """Return kernel sizes and edges. Old files tell them, by their tables; of others the released ones are assumed."""
    tables = {}
    for name, tensor in net.state_dict.items():
        place = STORED_TABLE.fullmatch(name)
        if place and place['table'] == 'pad_hv':
            tables.setdefault(int(name.split('.')[1]), tensor)
    if not tables:
        if [-(-size // small) for size in RELEASED_SHIFTWISE] != list(slots):
            return dict(kernel_size=None)
        return dict(kernel_size=RELEASED_SHIFTWISE)
    halves = [int(tables[stage].max()) + small - 1 for stage in range(NUM_STAGES)]
    # The strip is the same for an even side and the odd one above it, if both take as many filters.
    sizes = [
        side + 1 if -(-(side + 1) // small) == count else side
        for side, count in zip((2 * half for half in halves), slots, strict=True)
    ]
    return dict(kernel_size=tuple(sizes), num_edges=tables[0].shape[1] // 2)


def _ghost_ratio(channels: Sequence[int], through: Sequence[int], even: bool) -> float | None:
    """Return a ratio that splits all stages as they are: the released one, or another in steps of 0.01, or None."""
    for ratio in (0.23, *(step / 100 for step in range(100))):
        with suppress(ValueError):  # no channel left
            if all(len(channel_split(c, ratio, even)[0]) == t for c, t in zip(channels, through, strict=True)):
                return ratio
    return None


# ---------------------------------------------------------------------------------------------- UniRepLKNet


def _is_unireplknet(net: Net) -> tuple[str, Form] | None:
    if 'act.1.gamma' not in net.parts:
        return None
    return 'UniRepLKNet', 'training' if 'pwconv2.2.weight' in net.parts else 'official'


def _unireplknet(net: Net, family: str, form: Form) -> dict[str, Any]:
    kernels, branches = [], {}
    for stage, depth in enumerate(net.depths):
        for place in (f'stages.{stage}.{index}.dwconv' for index in range(depth)):
            large = net.shapes.get(f'{place}.lk_origin.weight')
            kernels.append((large or net.shapes.get(f'{place}.weight', (0, 0, 0)))[2])
            if large:
                dilated = (DILATED.fullmatch(name.removeprefix(place)) for name in net.shapes if name.startswith(place))
                branches[kernels[-1]] = tuple((int(match[1]), int(match[2])) for match in dilated if match)
    defaults = {side: pairs for side, pairs in DILATED_BRANCHES.items() if side > PLAIN}
    if form == 'training':
        branches = {side: pairs for side, pairs in branches.items() if pairs != defaults.get(side)}
    else:  # which tells no branches: the default ones will do
        branches = {side: () for side in branches if side not in defaults}
    sides = iter(kernels)
    kernels = tuple(tuple(itertools.islice(sides, depth)) for depth in net.depths)
    return dict(
        arch=_arch(family, net.depths, net.sizes('pwconv1.1.weight', 1)),
        **net.in_channels('downsample_layers.0.0.weight'),
        **({} if kernels == official_kernels(net.depths) else dict(kernel_size=kernels)),
        **(dict(branches=branches) if branches else {}),
        **({} if form == 'official' else net.layer_scale(form)),
        **net.outputs(),
    )


# -------------------------------------------------------------------------------------------- SLaK, ConvNeXt


def _is_slak(net: Net) -> tuple[str, Form] | None:
    part = net.first('large_kernel.LoRA1.conv.weight', 'large_kernel.vertical.weight')
    return part and ('SLaK', 'training' if 'LoRA1' in part else 'full')


def _slak(net: Net, family: str, form: Form) -> dict[str, Any]:
    strip = net.first('large_kernel.LoRA1.conv.weight', 'large_kernel.vertical.weight')
    bare = form == 'training' and 'large_kernel.LoRA1.bn.weight' not in net.parts
    return dict(
        **_slak_arch(net),
        **net.in_channels('downsample_layers.0.0.weight'),
        kernel_size=net.sizes(strip, 2),
        small_kernel=net.shapes[f'stages.0.0.{strip}'][3],
        **net.layer_scale(form),
        **net.outputs(),
        **({'norm_cfg': None} if bare else {}),
    )


def _slak_arch(net: Net) -> dict[str, Any]:
    """Return ``arch`` and ``width_factor``; the width of a known architecture is the released one or none."""
    depths, channels = tuple(net.depths), net.sizes('pwconv1.weight', 1)
    for width_factor in (1.3, 1.0):
        for name, known in backbones.SLaK.arch_settings.items():
            if depths == known['depths'] and channels == tuple(int(c * width_factor) for c in known['channels']):
                return dict(arch=name, width_factor=width_factor)
    return dict(arch=dict(depths=depths, channels=channels), width_factor=1.0)


def _is_convnext(net: Net) -> tuple[str, Form] | None:
    part = net.first('large_kernel.lkb_origin.conv.weight', 'large_kernel.lkb_reparam.weight', 'dwconv.weight')
    if part is None or 'pwconv2.weight' not in net.parts:
        return None
    # SLaK's code builds the same nets, and calls them SLaK; those have its widths, or no norm.
    with suppress(LookupError):
        bare = 'lkb_origin' in part and 'large_kernel.lkb_origin.bn.weight' not in net.parts
        if part != 'dwconv.weight' and (bare or _slak_arch(net)['width_factor'] == 1.3):
            return 'SLaK', _convnext_form(net, part)
    return 'LargeKernelConvNeXt', _convnext_form(net, part)


def _convnext_form(net: Net, part: str) -> Form:
    if 'lkb_origin' in part:
        return 'training'
    if 'gamma' in net.parts:
        return 'training' if part == 'dwconv.weight' else 'official'
    return 'full'


def _convnext(net: Net, family: str, form: Form) -> dict[str, Any]:
    part = net.first('large_kernel.lkb_origin.conv.weight', 'large_kernel.lkb_reparam.weight', 'dwconv.weight')
    kernels = net.sizes(part, 2)
    # What is merged no longer tells; what has a norm and nothing beside it says that the small kernel was too large.
    small = net.side('small_conv.conv.weight') or (max(kernels) if 'lkb_origin' in part else 5)
    dense = dict(_slak_arch(net), decomposed=False)
    return dict(
        **(dense if family == 'SLaK' else dict(arch=_arch(family, net.depths, net.sizes('pwconv1.weight', 1)))),
        **net.in_channels('downsample_layers.0.0.weight'),
        kernel_size=kernels,
        small_kernel=None if part == 'dwconv.weight' else small,
        **net.layer_scale(form),
        **net.outputs(),
        **({'norm_cfg': None} if 'lkb_origin' in part and 'large_kernel.lkb_origin.bn.weight' not in net.parts else {}),
    )


# ------------------------------------------------------------------------------------------------- RepLKNet


def _is_replknet(net: Net) -> tuple[str, Form] | None:
    if not any(name.startswith('stages.0.blocks.') for name in net.shapes):
        return None
    if net.first('large_kernel.lkb_origin.conv.weight'):
        return 'RepLKNet', 'training'
    return 'RepLKNet', 'official' if net.first('pw1.bn.weight') else 'full'


def _replknet(net: Net, family: str, form: Form) -> dict[str, Any]:
    kernel = net.first('large_kernel.lkb_origin.conv.weight', 'large_kernel.lkb_reparam.weight')
    channels = net.sizes('pw2.conv.weight', 0, block='{}.blocks.0')
    depths = tuple(blocks // 2 for blocks in net.depths)
    kernels = net.sizes(kernel, 2, block='{}.blocks.0')
    dw_ratio = net.shapes[f'stages.0.blocks.0.{kernel}'][0] / channels[0]
    small = net.side('small_conv.conv.weight')
    seen = dict(depths=depths, channels=channels, kernel_size=kernels, dw_ratio=dw_ratio)
    for name, known in backbones.RepLKNet.arch_settings.items():
        if seen.items() <= known.items():
            # What is merged no longer tells.
            settings = dict(
                arch=name, **({} if form != 'training' or small == known['small_kernel'] else {'small_kernel': small})
            )
            break
    else:
        settings = dict(arch=dict(depths=depths, channels=channels, dw_ratio=dw_ratio), kernel_size=kernels)
        settings['small_kernel'] = small
    stages = tuple(stage for stage in range(NUM_STAGES) if f'stages.{stage}.norm.weight' in net.shapes)
    if 'norm.weight' not in net.shapes:
        settings.update(out_indices=stages or tuple(range(NUM_STAGES)), gap_before_final_norm=False)
    if stages:
        settings['norm_intermediate_features'] = True
    return {**settings, **net.in_channels('stem.0.conv.weight')}


# ---------------------------------------------------------------------------------------------- MobileNetV2


def _is_mobilenet(net: Net) -> tuple[str, Form] | None:
    if not any(re.match(r'layer\d\.\d+\.conv\.\d\.', name) for name in net.shapes):
        return None
    if not any('.bn.' in name for name in net.shapes):
        return 'LargeKernelMobileNetV2', 'full'
    merged = any('.lkb_reparam.' in name for name in net.shapes)
    return 'LargeKernelMobileNetV2', 'official' if merged else 'training'


def _mobilenet(net: Net, family: str, form: Form) -> dict[str, Any]:
    def kernel(depthwise: str) -> int:
        return (
            net.side(f'{depthwise}.conv.weight')
            or net.side(f'{depthwise}.lkb_reparam.weight')
            or net.side(f'{depthwise}.lkb_origin.conv.weight')
        )

    width_factor = net.shapes['layer7.0.conv.2.conv.weight'][0] / 320
    if 20 * width_factor % 1:
        width_factor = None  # channels were rounded, differently in each layer
    last = kernel('layer7.0.conv.1')
    places = {'all': 'layer1.0.conv.0', 'last_stage': 'layer6.1.conv.1', 'last_block': 'layer7.0.conv.1'}
    merged = 'layer7.0.conv.1.lkb_reparam.weight' in net.shapes
    return dict(
        width_factor=width_factor,
        **net.in_channels('conv1.conv.weight'),
        kernel_size=last,
        small_kernel=net.side('small_conv.conv.weight') or (3 if merged else None),
        large_kernels=next(where for where, place in places.items() if kernel(place) == last),
        **({} if 'conv2.conv.weight' in net.shapes else dict(out_indices=tuple(range(NUM_STAGES)))),
    )


# In this order: what comes first has all that later ones have, and more.
FAMILIES = (
    (_is_shiftwise, _shiftwise),
    (_is_unireplknet, _unireplknet),
    (_is_slak, _slak),
    (_is_replknet, _replknet),
    (_is_convnext, _convnext),
    (_is_mobilenet, _mobilenet),
)
