"""Put a backbone of this package into any config of mmseg, mmdet or mmpretrain, in the place of the one it has.

What the old backbone returns is measured, on torch's meta device, and so is what the new one returns. Each old map has
its counterpart among the new ones, by stride; whatever takes the maps is rewired to these. Nothing else changes: data,
schedule and optimiser stay, except for what only fits the old backbone.
"""

import copy
import difflib
import inspect
import itertools
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import sw_mm.compat  # noqa: F401  (mmdet cannot be imported without mmcv's operators)
from sw_mm import backbones

LIBRARIES = ('mmdet', 'mmpretrain', 'mmseg')
NATIVE_STRIDES = (4, 8, 16, 32)
LAST = len(NATIVE_STRIDES) - 1

# What a family is called where that is not its class in lower case.
FAMILIES = {
    'LargeKernelConvNeXt': 'convnext31',
    'LargeKernelMobileNetV2': 'mobilenetv2-lk',
    'ShiftWiseNet': 'shiftwise',
}
# What an architecture needs for dense prediction beside the rest, as in its official code.
DENSE_OPTIONS = {'replknet-xl': dict(norm_intermediate_features=True)}

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

# Options of old backbones that change no shape, and that keep them from running on the meta device.
OPERATORS = ('dcn', 'stage_with_dcn', 'plugins', 'init_cfg', 'pretrained')
# Backbones that make the maps of one particular model.
WHOLE_NETS = {
    *('BiSeNetV1', 'BiSeNetV2', 'CGNet', 'DDRNet', 'ERFNet', 'FastSCNN', 'HourglassNet', 'ICNet', 'PIDNet'),
    *('STDCContextPathNet', 'UNet', 'VPD'),
}
MORE_THAN_MAPS = {
    'DetectoRS_ResNet': 'the neck RFP feeds its pyramid back into it',
    'DetectoRS_ResNeXt': 'the neck RFP feeds its pyramid back into it',
    'TridentResNet': 'it returns three branches for each image, which TridentRoIHead takes apart',
}
MASKED_MODELING = {
    *('BEiT', 'BEiTV2', 'CAE', 'EVA', 'MAE', 'MFF', 'MILAN', 'MaskFeat', 'MixMIM', 'SimMIM', 'SparK', 'iTPN'),
}
# Necks that make a pyramid out of maps of one resolution: our backbones return one.
PYRAMID_NECKS = ('Feature2Pyramid', 'MultiLevelNeck')
# Why heads fail that view a map as something else.
VIEWED = (
    '{} takes maps for contiguous in memory (Tensor.view), and those of this backbone have their channels last; '
    'mobilenetv2-lk and replknet do not'
)
# Necks that look maps up by their number in ResNet, whatever their start_level.
COUNTING_NECKS = ('NASFCOS_FPN',)
# Heads and necks of mmpretrain, by what they take.
POOLINGS = ('GlobalAveragePooling', 'HRFuseScales')
MAP_NECKS = ('DenseCLNeck', 'GeneralizedMeanPooling', 'LinearNeck', 'MoCoV2Neck', 'NonLinearNeck', 'SwAVNeck')
MAP_HEADS = ('CSRAClsHead',)
TOKEN_HEADS = {
    'ConformerHead': 'takes the two branches of a Conformer',
    'DeiTClsHead': 'takes the class and the distillation token of a DeiT',
}
LAYER_DECAY = (
    'LayerDecayOptimWrapperConstructor',
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
    'LearningRateDecayOptimizerConstructor',
)

Place = tuple[str | int, ...]


class Map(NamedTuple):
    """What a backbone returns for a stage: a map of so many channels, at 1/stride of the image's size."""

    channels: int
    stride: int


@dataclass(frozen=True)
class Swap:
    """A config whose backbone has been replaced.

    Attributes:
        config: The whole config.
        changes: What an inheriting config has to say, by its place in the config; ``_delete_`` in a dict is mmengine's.
        notes: What was done and why, a sentence each.
        library: The library whose config it is.
        old: Type of the old backbone.
        name: Name of the new one.
    """

    config: Config
    changes: dict[Place, object]
    notes: list[str]
    library: str
    old: str
    name: str

    def summary(self) -> list[str]:
        """Say in a few lines what was changed: the options of the new backbone, the rewired places, the notes."""
        lines = [
            f'{".".join(map(str, place))} = {_literal(value, -math.inf)}'
            for place, value in self.changes.items()
            if place[0] == 'model' and place[-1] != 'pretrained'
        ]
        return [*lines, *(f'{note}.' for note in self.notes)]

    def text(self, base: str) -> str:
        """Write the config file that inherits ``base`` and makes the changes.

        Args:
            base: What stands behind ``_base_``: a path, or a name such as ``mmdet::fcos/fcos_r50_fpn_1x_coco.py``.
        """
        return _render(self, base)


def swap_backbone(cfg: Config | str | os.PathLike, name: str) -> Config:
    """Replace the backbone of a config, and rewire what takes its maps.

    Args:
        cfg: A config of mmseg, mmdet or mmpretrain: the object, its path, or a name such as
            ``'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'``. It is not changed.
        name: Family and architecture, such as ``'shiftwise-tiny'``; see ``backbone_names``.

    Returns:
        The whole config after the swap.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is no such backbone, or the model cannot work with it; the message says which part of it
            cannot, and why.
    """
    return plan_swap(cfg, name).config


def backbone_names() -> dict[str, dict]:
    """Return the backbones by name, ``<family>-<arch>``, each as the config that builds it."""
    names = {}
    for cls in backbones.__all__:
        family = FAMILIES.get(cls, cls.lower())
        archs = getattr(getattr(backbones, cls), 'arch_settings', None)
        for arch in archs or [None]:
            config = dict(type=f'sw_mm.{cls}', **({} if arch is None else dict(arch=arch)))
            names[family if arch is None else f'{family}-{arch}'] = config
    return names


def read_config(source: Config | str | os.PathLike) -> Config:
    """Read a config from its path or from the name that ``_base_`` would have; a config object is copied.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is written in mmengine's pure Python style.
    """
    if isinstance(source, Config):
        return copy.deepcopy(source)
    path = locate(source)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob('*.py')], n=3)
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
        raise FileNotFoundError(f'there is no config {os.fspath(source)!r}{hint}')
    try:
        config = Config.fromfile(path)
    except RuntimeError as error:  # mmengine's, for what looks like a pure Python config to it
        raise ValueError(f'mmengine cannot read {os.fspath(source)!r}, so nothing can inherit it: {error}') from error
    if not isinstance(config.get('model', {}).get('type', ''), str):
        raise ValueError(
            f'{os.fspath(source)!r} is in pure Python style; give the config with `_base_ = ...` that it stands for'
        )
    return config


def locate(source: str | os.PathLike) -> Path:
    """Return the path of a config; the libraries' own are also known by ``mmseg::`` and their path below it."""
    library, colons, inside = os.fspath(source).partition('::')
    if not colons:
        return Path(source)
    if library not in LIBRARIES:
        raise ValueError(f'a config name must start with one of {", ".join(LIBRARIES)}; got {os.fspath(source)!r}')
    return _configs_of(library) / (inside if inside.endswith('.py') else f'{inside}.py')


def base_name(source: str | os.PathLike, directory: Path) -> str:
    """Return what a config in ``directory`` calls ``source`` in its ``_base_``."""
    path = locate(source).resolve()
    for library in LIBRARIES:
        try:
            return f'{library}::{path.relative_to(_configs_of(library).resolve()).as_posix()}'
        except (ModuleNotFoundError, ValueError):
            continue
    relative = Path(os.path.relpath(path, directory.resolve())).as_posix()
    return relative if relative.startswith('.') else f'./{relative}'


def _configs_of(library: str) -> Path:
    """Return the folder of the configs that a library was installed with."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'{library} is not installed')
    return Path(spec.origin).parent / '.mim' / 'configs'


def plan_swap(cfg: Config | str | os.PathLike, name: str) -> Swap:
    """Do what ``swap_backbone`` does, and return beside the config what was changed, and why."""
    known = backbone_names()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        raise ValueError(f'name must be one of {", ".join(known)}; got {name!r}{f"; {near[0]!r}?" if near else ""}')
    config = read_config(cfg)
    library = _library(config)
    swapper = {'mmdet': _DetectorSwap, 'mmpretrain': _ClassifierSwap, 'mmseg': _SegmentorSwap}[library]
    return swapper(config, library, name, known[name]).swap()


def _library(config: Config) -> str:
    """Return the library whose config this is."""
    scope = config.get('default_scope')
    if scope is None and config.filename:
        path = Path(config.filename).resolve()
        scope = next((library for library in LIBRARIES if library in path.parts), None)
    if scope not in LIBRARIES:
        raise ValueError(f'cfg must have default_scope, one of {", ".join(LIBRARIES)}; got {scope!r}')
    return scope


class _NoWeights(TorchFunctionMode):
    """Make parameters without memory or values; what else a constructor computes stays real."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return func(*args, **(dict(kwargs, device='meta') if func is torch.empty else kwargs))


def build_without_weights(config: dict, scope: str) -> nn.Module:
    """Build a module of a library on the meta device, in eval mode."""
    with DefaultScope.overwrite_default_scope(scope), _NoWeights():
        module = MODELS.build(config)
    module.to('meta')
    module.eval()
    return module


@torch.no_grad()
def _outputs(configs: Sequence[dict], scope: str, size: int, channels: int = 3) -> list[object]:
    """Return the outputs of modules called one after the other with an image of so many pixels a side."""
    x = torch.empty(1, channels, size, size, device='meta')
    for config in configs:
        x = build_without_weights(config, scope)(x)
    return list(x) if isinstance(x, tuple | list) else [x]


@dataclass
class _BaseSwap:
    """What the swaps of the three libraries have in common."""

    config: Config
    library: str
    name: str
    new: dict
    changes: dict[Place, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.new = dict(self.new)
        self.parameters = inspect.signature(getattr(backbones, self.new['type'].rpartition('.')[2])).parameters
        self.host = self.find_host()
        old = copy.deepcopy(self.get(self.backbone_place))
        self.old = old[0] if isinstance(old, list) else old  # a list of mmpretrain: a backbone and what follows it
        self.old_type = str(self.old.get('type')).rpartition('.')[2]

    # Places in the config

    def get(self, place: Place, default: object = None) -> object:
        value = self.config
        for key in place:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def set(self, place: Place, value: object) -> None:
        """Change the config at ``place``, if it says something else there."""
        clean = {key: v for key, v in value.items() if key != '_delete_'} if isinstance(value, dict) else value
        before = self.get(place, default=...)
        if isinstance(before, bool) == isinstance(clean, bool) and _plain(before) == _plain(clean):
            return
        if isinstance(before, tuple) and isinstance(value, list):
            value = clean = tuple(value)  # some constructors insist
        self.changes[place] = value
        parent = self.config
        for key in place[:-1]:
            if isinstance(parent, dict | Config) and key not in parent:
                parent[key] = {}
            parent = parent[key]
        parent[place[-1]] = copy.deepcopy(clean)

    def find_host(self) -> Place:
        """Return where the dict stands that has the backbone."""
        for host in (('model',), ('model', 'detector')):
            if isinstance(self.get((*host, 'backbone')), dict):
                return host
        model = self.get(('model', 'type'))
        raise ValueError(
            f'the model {model} has no backbone of its own in the config, so there is nothing to replace; '
            'give a config with model.backbone'
        )

    @property
    def backbone_place(self) -> Place:
        return (*self.host, 'backbone')

    def refuse(self, reason: str) -> ValueError:
        return ValueError(f'{self.name} cannot take the place of {self.old_type}: {reason}')

    # The steps

    def swap(self) -> Swap:
        if self.old_type in WHOLE_NETS:
            raise self.refuse(
                f'{self.old_type} is the architecture itself, the heads take what its branches make; start from a '
                'config that puts a head on a plain backbone, such as ResNet'
            )
        if self.old_type in MORE_THAN_MAPS:
            raise self.refuse(f'{MORE_THAN_MAPS[self.old_type]}; start from a config with a plain ResNet')
        options = self.rewire()
        self.replace(options)
        self.adjust_preprocessor()
        self.adjust_optimizer()
        self.import_registry()
        return Swap(self.config, self.changes, self.notes, self.library, self.old_type, self.name)

    def rewire(self) -> dict:
        """Rewire necks and heads, and return the options of the backbone that follow from them."""
        raise NotImplementedError

    def replace(self, options: dict) -> None:
        if self.get((*self.host, 'pretrained')):
            self.set((*self.host, 'pretrained'), None)
        if self.get(('load_from',)):
            self.set(('load_from',), None)
            self.notes.append('No load_from: those weights are of the old network')
        carried = {
            key: self.old[key] for key in ('drop_path_rate', 'with_cp') if key in self.parameters and self.old.get(key)
        }
        if self.old.get('in_channels', 3) != 3:
            carried['in_channels'] = self.old['in_channels']
        norm = dict(norm_cfg=dict(type='SyncBN', requires_grad=True)) if self.wants_sync_bn() else {}
        self.set(
            self.backbone_place,
            dict(
                _delete_=True,
                **self.new,
                **options,
                **carried,
                **norm,
                init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
            ),
        )

    def wants_sync_bn(self) -> bool:
        return dict(self.old.get('norm_cfg') or {}).get('type') == 'SyncBN'

    def adjust_preprocessor(self) -> None:
        if self.old.get('in_channels', 3) != 3:
            self.notes.append(
                'The input has not 3 channels, so the official weights do not fit, and the input stays as it is'
            )
            return
        places = [('model', 'data_preprocessor'), ('data_preprocessor',), (*self.host, 'data_preprocessor')]
        done = False
        for place in dict.fromkeys(places):
            while isinstance(self.get((*place, 'data_preprocessor')), dict):
                place = (*place, 'data_preprocessor')
            found = self.get(place)
            # The variable of that name in mmseg's configs says nothing where the model has its own.
            if isinstance(found, dict) and not (place == ('data_preprocessor',) and done):
                self.normalize_as_imagenet(place)
                done = True

    def normalize_as_imagenet(self, place: Place) -> None:
        """Give images in RGB, with ImageNet's mean and deviation, to the backbone: as in training its weights."""
        now = self.get(place)
        flag = 'to_rgb' if self.library == 'mmpretrain' else 'bgr_to_rgb'
        same = all(now.get(key) is not None and list(now[key]) == values for key, values in IMAGENET.items())
        if same and now.get(flag):
            return
        for key, value in {**IMAGENET, flag: True}.items():
            self.set((*place, key), value)
        if now.get('rgb_to_bgr'):
            self.set((*place, 'rgb_to_bgr'), False)
        self.notes.append("Images are given in RGB with ImageNet's mean and deviation, as the official weights expect")

    def adjust_optimizer(self) -> None:
        wrapper = self.get(('optim_wrapper',))
        if not isinstance(wrapper, dict):
            return
        options = dict(wrapper.get('paramwise_cfg') or {})
        if str(wrapper.get('constructor')).rpartition('.')[2] in LAYER_DECAY:
            rate = options.pop('decay_rate', options.pop('layer_decay_rate', 1.0))
            for key in ('decay_type', 'num_layers', 'layer_decay_rate'):
                options.pop(key, None)
            self.set(('optim_wrapper', 'constructor'), 'sw_mm.LayerDecayOptimWrapperConstructor')
            self.set(('optim_wrapper', 'paramwise_cfg'), dict(_delete_=True, decay_rate=rate, **options))
            if ('optim_wrapper', 'paramwise_cfg') in self.changes:
                self.notes.append('Layer decay counts the layers of the new backbone')
        elif self.norms_without_decay(options) and options.get('norm_decay_mult') != 0:
            # The old backbone's norms had names to go by. The new one has batch norms whose names differ.
            self.set(('optim_wrapper', 'paramwise_cfg', 'norm_decay_mult'), 0.0)
            self.notes.append(
                'No weight decay on norms by norm_decay_mult: the norms of the new backbone have other names'
            )
        if str(dict(wrapper.get('optimizer') or {}).get('type')) == 'SGD':
            self.notes.append('The optimiser is still SGD; the papers of these networks use AdamW')

    @staticmethod
    def norms_without_decay(options: dict) -> bool:
        custom = options.get('custom_keys') or {}
        return any(
            key.rpartition('.')[2] in ('norm', 'ln') and dict(value).get('decay_mult') == 0
            for key, value in custom.items()
        )

    def import_registry(self) -> None:
        before = dict(self.get(('custom_imports',)) or {})
        names = before.get('imports') or []
        names = [names] if isinstance(names, str) else list(names)
        if 'sw_mm.registry' not in names:
            self.set(('custom_imports', 'imports'), [*names, 'sw_mm.registry'])
            if 'allow_failed_imports' not in before:
                self.set(('custom_imports', 'allow_failed_imports'), False)


class _DenseSwap(_BaseSwap):
    """Segmentors and detectors: what counts are maps and their strides."""

    def swap(self) -> Swap:
        self.old_maps = self.measure_old()
        return super().swap()

    def measure_old(self) -> list[Map]:
        if self.old_type in WHOLE_NETS or self.old_type in MORE_THAN_MAPS:
            return []  # refused before they are needed
        config = {key: value for key, value in self.old.items() if key not in OPERATORS}
        size = self.old.get('img_size') or 512
        size = size if isinstance(size, int) else size[0]
        configs = [config]
        if self.makes_pyramid():
            configs.append(self.get((*self.host, 'neck')))
        try:
            outputs = _outputs(configs, self.library, size, self.old.get('in_channels', 3))
        except Exception as error:
            raise self.refuse(f'it could not be run to see what it returns: {type(error).__name__}: {error}') from error
        if not all(isinstance(output, Tensor) and output.ndim == 4 for output in outputs):
            raise self.refuse(
                f'it returns more than maps, class tokens perhaps, and {self.head_type()} takes those; choose a head '
                'that takes maps, such as UPerHead'
            )
        if self.makes_pyramid():
            self.notes.append(f'No {self.neck_type()}: the backbone returns a pyramid itself')
            self.set((*self.host, 'neck'), None)
        maps = [Map(output.shape[1], round(size / output.shape[2])) for output in outputs]
        if len(maps) > 1 and len({stride for _, stride in maps}) == 1:
            raise self.refuse(
                f'{self.neck_type() or self.head_type()} takes {len(maps)} maps of one resolution, as a plain '
                'vision transformer makes them, and the new backbone has one map for each; choose a neck or head that '
                'takes a pyramid, such as FPN or UPerHead'
            )
        return maps

    def makes_pyramid(self) -> bool:
        """Return whether the neck makes the pyramid that the new backbone returns by itself."""
        return self.neck_type() in PYRAMID_NECKS

    def has_neck(self) -> bool:
        return bool(self.neck_type())

    def neck_type(self) -> str:
        neck = self.get(self.neck_place)
        return str(neck.get('type')).rpartition('.')[2] if isinstance(neck, dict) else ''

    @property
    def neck_place(self) -> Place:
        """The neck that takes the maps of the backbone: the first, where there are several."""
        place = (*self.host, 'neck')
        return (*place, 0) if isinstance(self.get(place), list) else place

    def head_type(self) -> str:
        heads = [self.get((*place, 'type')) for place in self.heads()]
        return ' and '.join(dict.fromkeys(map(str, heads)))

    def heads(self) -> list[Place]:
        raise NotImplementedError

    def used_outputs(self) -> list[int]:
        """Return which of the old maps anything takes."""
        raise NotImplementedError

    def rewire(self) -> dict:
        stages = self.counterparts([stride for _, stride in self.old_maps])
        used = self.used_outputs()
        self.position = {index: position for position, index in enumerate(used)}
        options = dict(out_indices=tuple(stages[index] for index in used), gap_before_final_norm=False)
        if 'layer_scale_init_value' in self.parameters:
            options['layer_scale_init_value'] = 1.0
        options.update(DENSE_OPTIONS.get(self.name, {}))
        if stages[-1] == LAST and self.keeps_stride():
            options['output_stride'] = self.old_maps[-1].stride
        config = dict(self.new, **options)
        size = 512
        outputs = _outputs([config], self.library, size)
        self.new_maps = {
            index: Map(output.shape[1], round(size / output.shape[2]))
            for index, output in zip(used, outputs, strict=True)
        }
        self.contiguous = all(output.is_contiguous() for output in outputs)
        if LAST not in options['out_indices']:
            self.set(('find_unused_parameters',), True)
            self.notes.append(
                f'The model takes no map beyond stride {self.new_maps[used[-1]].stride}, so the last stage of the '
                'backbone learns nothing; find_unused_parameters lets distributed training accept that'
            )
        if self.neck_type() in COUNTING_NECKS:
            self.set(('find_unused_parameters',), True)
            self.notes.append(
                f'{self.neck_type()} asks for a map that it does not use, whose norm learns nothing; '
                'find_unused_parameters lets distributed training accept that'
            )
        self.rewire_consumers(options)
        return options

    def keeps_stride(self) -> bool:
        """Return whether the new backbone can be dilated as the old one is."""
        return 'output_stride' in self.parameters and self.old_maps[-1].stride in (8, 16)

    def counterparts(self, strides: list[int]) -> list[int]:
        """Return the stage that takes the place of each old map."""
        raise NotImplementedError

    def rewire_consumers(self, options: dict) -> None:
        raise NotImplementedError

    def rewire_neck(self) -> None:
        """Give the neck the channels of the new maps; those that it does not look at are not returned any more."""
        place = self.neck_place
        neck = self.get(place)
        channels = [new.channels for new in self.new_maps.values()]
        given = neck.get('in_channels')
        if isinstance(given, int):
            self.set((*place, 'in_channels'), channels[-1])
        elif isinstance(given, list | tuple):
            old = [old.channels for old in self.old_maps]
            backwards = list(given) != old and list(given) == old[::-1]
            self.set((*place, 'in_channels'), channels[::-1] if backwards else channels)
        else:
            raise self.refuse(
                f'the neck {self.neck_type()} has no in_channels, so it is not known what it takes of which map'
            )
        dropped = min(self.position)
        if dropped and neck.get('start_level'):
            self.set((*place, 'start_level'), neck['start_level'] - dropped)
            if neck.get('end_level', -1) > 0:
                self.set((*place, 'end_level'), neck['end_level'] - dropped)

    def outputs_of_neck(self) -> list[int]:
        neck = self.get(self.neck_place)
        count = len(self.old_maps)
        if isinstance(neck.get('in_channels'), int):
            return [count - 1]
        if self.neck_type() in COUNTING_NECKS:
            return list(range(count))
        return list(range(neck.get('start_level') or 0, count))

    def wants_sync_bn(self) -> bool:
        """Wherever the old backbone did not train plain batch norms: two images a GPU are too few for these."""
        norm = dict(self.old.get('norm_cfg') or {})
        trains_plain = norm.get('type') == 'BN' and norm.get('requires_grad', True) and not self.old.get('norm_eval')
        return not trains_plain


class _SegmentorSwap(_DenseSwap):
    def heads(self) -> list[Place]:
        places = []
        for key in ('decode_head', 'auxiliary_head'):
            found = self.get((*self.host, key))
            if isinstance(found, list):
                places += [(*self.host, key, index) for index in range(len(found))]
            elif isinstance(found, dict):
                places.append((*self.host, key))
        return places

    def indices(self, place: Place) -> list[int]:
        """Return which maps a head takes, as numbers from 0."""
        count, head = len(self.old_maps), self.get(place)
        several = isinstance(head.get('in_channels'), list | tuple)
        index = head.get('in_index', list(range(count)) if several else -1)
        indices = [i % count for i in (index if isinstance(index, list | tuple) else [index])]
        if str(head.get('type')).endswith('EncHead') and not head.get('add_lateral'):
            return indices[-1:]  # it asks for three and takes the last
        last = self.get((*self.host, 'decode_head'))
        if isinstance(last, list) and place[-2] == 'decode_head' and len(indices) == 1:
            # The heads of a cascade refine one another, so maps of one stride have to remain that.
            final = last[-1].get('in_index', -1)
            same = isinstance(final, int) and self.old_maps[final].stride == self.old_maps[indices[0]].stride
            if same and not self.keeps_stride():
                return [final % count]
        return indices

    def used_outputs(self) -> list[int]:
        if self.has_neck():
            return self.outputs_of_neck()
        used = {index for place in self.heads() for index in self.indices(place)}
        if any(self.get((*place, 'c1_in_channels')) for place in self.heads()):
            used.add(0)
        return sorted(used)

    def counterparts(self, strides: list[int]) -> list[int]:
        """By stride where all have their counterpart, else the last stage for the last map.

        Dilated backbones repeat strides, and lead to the last case, as does a single map: heads want the deepest.
        """
        count = len(strides)
        if count > 1 and strides == sorted(set(strides)) and set(strides) <= set(NATIVE_STRIDES):
            return [NATIVE_STRIDES.index(stride) for stride in strides]
        if count > len(NATIVE_STRIDES):
            raise self.refuse(f'it returns {count} maps, and the new backbone has {len(NATIVE_STRIDES)}')

        def distance(stages: Sequence[int]) -> float:
            return sum(abs(math.log2(NATIVE_STRIDES[s] / stride)) for s, stride in zip(stages, strides, strict=True))

        choices = itertools.combinations(range(len(NATIVE_STRIDES)), count)
        return list(min((stages for stages in choices if stages[-1] == LAST), key=distance))

    def note_stride(self) -> None:
        """Heads of mmseg enlarge what they get, so any stride will do; say what it is."""
        last = max(self.new_maps)
        old, new = self.old_maps[last].stride, self.new_maps[last].stride
        if new > old:
            self.notes.append(
                f'The last map has stride {new} instead of {old}, so fine structures may suffer; mobilenetv2-lk is the '
                'backbone that can keep it'
            )

    def rewire_consumers(self, options: dict) -> None:
        self.note_stride()
        if self.has_neck():
            self.rewire_neck()
            self.rewire_heads_behind_neck(options)
            return
        for place in self.heads():
            self.check_head(place)
            head, indices = self.get(place), self.indices(place)
            several = isinstance(head.get('in_channels'), list | tuple)
            channels = [self.new_maps[index].channels for index in indices]
            self.set((*place, 'in_channels'), channels if several else channels[0])
            positions = [self.position[index] for index in indices]
            if 'in_index' in head and not (head['in_index'] == -1 and positions == [len(self.position) - 1]):
                self.set((*place, 'in_index'), positions if several else positions[0])
            if head.get('c1_in_channels'):
                self.set((*place, 'c1_in_channels'), self.new_maps[0].channels)
            self.scale_dilations(place, indices[-1])

    def check_head(self, place: Place) -> None:
        """Refuse heads that do more with a map than convolve it."""
        kind = str(self.get((*place, 'type'))).rpartition('.')[2]
        stride = self.new_maps[self.indices(place)[-1]].stride
        if kind == 'LRASPPHead' and stride > self.old_maps[-1].stride:
            raise self.refuse(
                f'LRASPPHead averages over windows of 49x49, which a map of stride {stride} is too small for; '
                'mobilenetv2-lk keeps the stride'
            )
        if kind == 'DMHead' and not self.contiguous:
            raise self.refuse(VIEWED.format('DMHead'))

    def scale_dilations(self, place: Place, index: int) -> None:
        """Let dilated kernels of a head reach as far in the image as before."""
        scale = self.old_maps[index].stride / self.new_maps[index].stride
        if scale == 1:
            return
        for key in ('dilations', 'dilation'):
            given = self.get((*place, key))
            if given is not None:
                scaled = [max(1, round(d * scale)) for d in (given if isinstance(given, list | tuple) else [given])]
                self.set((*place, key), tuple(scaled) if isinstance(given, list | tuple) else scaled[0])

    def rewire_heads_behind_neck(self, options: dict) -> None:
        """Some necks hand maps through, so what they return is measured as well."""
        neck = self.get((*self.host, 'neck'))
        outputs = _outputs([dict(self.new, **options), neck], self.library, 512)
        channels = [output.shape[1] for output in outputs]
        for place in self.heads():
            head = self.get(place)
            index = head.get('in_index', -1)
            if isinstance(index, int) and isinstance(head.get('in_channels'), int):
                self.set((*place, 'in_channels'), channels[index])


class _DetectorSwap(_DenseSwap):
    def heads(self) -> list[Place]:
        return [(*self.host, key) for key, value in self.get(self.host).items() if key.endswith('head') and value]

    def used_outputs(self) -> list[int]:
        return self.outputs_of_neck() if self.has_neck() else list(range(len(self.old_maps)))

    def counterparts(self, strides: list[int]) -> list[int]:
        """By stride: anchors, points and regions depend on it."""
        foreign = [stride for stride in strides if stride not in NATIVE_STRIDES]
        if foreign or strides != sorted(set(strides)):
            raise self.refuse(
                f'its maps have the strides {strides}, which {self.head_type()} relies on; the new backbone has one '
                f'map each at {", ".join(map(str, NATIVE_STRIDES))}'
            )
        return [NATIVE_STRIDES.index(stride) for stride in strides]

    def rewire_consumers(self, options: dict) -> None:
        if self.get((*self.host, 'roi_head', 'shared_head')):
            shared = self.get((*self.host, 'roi_head', 'shared_head', 'type'))
            raise self.refuse(
                f'roi_head.shared_head={shared} is the last stage of a ResNet and takes 1024 channels; start from the '
                'same detector with an FPN'
            )
        if self.has_neck():
            self.rewire_neck()
            if self.neck_type() == 'SSDNeck':
                self.rewire_ssd()
        else:
            for place in self.heads():
                self.rewire_head(place)
        if self.neck_type() == 'CTResNetNeck' and not self.contiguous:
            raise self.refuse(VIEWED.format('CenterNetHead behind CTResNetNeck'))
        self.pad()

    def rewire_ssd(self) -> None:
        """SSD predicts from the maps themselves, and from what follows them."""
        channels = list(self.get((*self.neck_place, 'in_channels')))
        for place in ((*self.neck_place, 'out_channels'), (*self.host, 'bbox_head', 'in_channels')):
            self.set(place, [*channels, *self.get(place)[len(channels) :]])

    def rewire_head(self, place: Place) -> None:
        """Replace the numbers of channels in a head that takes the maps of the backbone, and in what it is made of."""
        old = [m.channels for m in self.old_maps]
        new = [m.channels for m in self.new_maps.values()]
        for inner, value in _walk(self.get(place), place):
            if inner[-1] == 'in_channels' or (inner[-1] == 'out_channels' and 'roi_extractor' in str(inner[-2])):
                if isinstance(value, list | tuple) and list(value) == old:
                    self.set(inner, new)
                elif value == old[-1]:
                    self.set(inner, new[-1])

    def pad(self) -> None:
        """Pad images to whole patches where the new backbone would cut off what is left."""
        least = build_without_weights(self.new, self.library).min_size
        if least == 1:
            return
        place = ('model', 'data_preprocessor')
        while isinstance(self.get((*place, 'data_preprocessor')), dict):
            place = (*place, 'data_preprocessor')
        if isinstance(self.get(place), dict) and (self.get((*place, 'pad_size_divisor')) or 1) % least:
            self.set((*place, 'pad_size_divisor'), least)
            self.notes.append(f'Images are padded to multiples of {least}: the backbone has no padding between stages')


class _ClassifierSwap(_BaseSwap):
    """Classifiers, retrievers and contrastive learners: the backbone gives a vector, or its last map."""

    def find_host(self) -> Place:
        if self.get(('model', 'image_encoder')):
            return ('model',)
        return super().find_host()

    @property
    def backbone_place(self) -> Place:
        encoder = self.get(('model', 'image_encoder'))
        return ('model', 'image_encoder') if encoder else (*self.host, 'backbone')

    def rewire(self) -> dict:
        model = str(self.get(('model', 'type'))).rpartition('.')[2]
        if model in MASKED_MODELING:
            raise self.refuse(
                f'{model} pre-trains by masked image modelling, which hides tokens inside {self.old_type}; contrastive '
                'methods such as MoCo or SimCLR take any backbone'
            )
        if self.old_type.endswith('_CIFAR'):
            self.notes.append('The last map has stride 32, and images of 32x32 become one pixel: enlarge them')
        channels = _outputs([dict(self.new)], self.library, 64)[-1].shape[1]
        maps = self.rewire_neck(channels)
        head_place = (*self.host, 'head')
        head = self.get(head_place) or {}
        kind = str(head.get('type')).rpartition('.')[2]
        if kind in TOKEN_HEADS:
            raise self.refuse(f'the head {kind} {TOKEN_HEADS[kind]}; use LinearClsHead')
        if kind == 'ClsHead':
            raise self.refuse('ClsHead has no layers, the backbone makes the scores itself; use LinearClsHead')
        if not self.neck_transforms and 'in_channels' in head:
            if not isinstance(head['in_channels'], int):
                raise self.refuse(f'the head {kind} takes {len(head["in_channels"])} inputs; use LinearClsHead')
            self.set((*head_place, 'in_channels'), channels)
        maps = maps or kind in MAP_HEADS
        return dict(gap_before_final_norm=False) if maps else {}

    neck_transforms = False  # whether the neck, and not the backbone, decides what the head gets

    def rewire_neck(self, channels: int) -> bool:
        """Rewire the neck or leave it out; return whether what remains takes maps."""
        place = (*self.host, 'neck')
        encoder = self.get(('model', 'image_encoder'))
        if isinstance(encoder, list):
            kinds = [str(part.get('type')).rpartition('.')[2] for part in encoder[1:]]
            if not set(kinds) <= set(POOLINGS):
                raise self.refuse(f'image_encoder has {", ".join(kinds)} behind the backbone; it must be pooling only')
            return False
        neck = self.get(place)
        parts = neck if isinstance(neck, list) else [neck] if neck else []
        inside = (*place, 0) if isinstance(neck, list) else place
        kinds = [str(part.get('type')).rpartition('.')[2] for part in parts]
        if set(kinds) <= set(POOLINGS):
            if parts:
                self.set(place, None)
                self.notes.append(f'No {" and ".join(kinds)}: the backbone returns the pooled vector')
            return False
        if len(kinds) != 1 or kinds[0] not in MAP_NECKS:
            raise self.refuse(f'it is not known what the neck {" and ".join(kinds)} takes of a backbone')
        if 'in_channels' in parts[0]:
            self.set((*inside, 'in_channels'), channels)
            self.neck_transforms = True
        if kinds[0] == 'LinearNeck':
            return bool(parts[0].get('gap_dim', 0))
        return kinds[0] in ('DenseCLNeck', 'GeneralizedMeanPooling') or parts[0].get('with_avg_pool', True)

    def normalize_as_imagenet(self, place: Place) -> None:
        """Keep the statistics of data sets that come as arrays: there is no other source of their colours' order."""
        pipeline = self.get(('train_dataloader', 'dataset', 'pipeline')) or []
        if any('LoadImageFromFile' in str(step.get('type')) for step in pipeline):
            super().normalize_as_imagenet(place)


def _walk(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    """Yield every value inside dicts and lists of dicts, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, key), inner
            yield from _walk(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            if isinstance(inner, dict):
                yield from _walk(inner, (*place, index))


def _plain(value: object) -> object:
    """Return a tuple as a list: configs do not care which of them it is."""
    return list(value) if isinstance(value, tuple) else value


class _Name(str):
    """A variable of the config file."""


WIDTH = 120
HEADER = ('custom_imports', 'find_unused_parameters', 'load_from')
SLOT = """
# ImageNet-1K weights, official ones or your own; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set {}.init_cfg.checkpoint.
checkpoint = None
"""


def _render(swap: Swap, base: str) -> str:
    """Write a config file that inherits ``base``."""
    tree, statements, slot = {}, [], ''
    for place, value in swap.changes.items():
        index = next((i for i, key in enumerate(place) if isinstance(key, int)), None)
        if index is not None:  # lists are inherited as a whole or not at all
            name = _Name(place[index - 1])
            origin = f'{name} = _base_.{".".join(place[:index])}'
            if origin not in statements:
                statements.append(origin)
            statements.append(f'{name}[{place[index]}].{".".join(place[index + 1 :])} = {_literal(value)}')
            place, value = place[:index], name
        elif isinstance(value, dict) and 'init_cfg' in value:
            value = dict(value, init_cfg=dict(value['init_cfg'], checkpoint=_Name('checkpoint')))
            slot = SLOT.format('.'.join(place))
        inner = tree
        for key in place[:-1]:
            inner = inner.setdefault(key, {})
        inner[place[-1]] = value
    tree = _ordered(tree, swap.config)
    order = sorted(tree, key=[*HEADER, 'model', *tree].index)
    lines = {key: f'{key} = {_literal(tree[key], len(key) + 3)}' for key in order}
    first, rest = [[lines[key] for key in order if (key in HEADER) is chosen] for chosen in (True, False)]
    return '\n'.join([_docstring(swap, base), '', f'_base_ = {base!r}', *first, slot, *statements, *rest, ''])


def _docstring(swap: Swap, base: str) -> str:
    def wrapped(text: str, hang: str = '') -> str:
        return '\n'.join(
            textwrap.wrap(text, WIDTH - 8, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)
        )

    title = wrapped(f'{swap.name} in the place of {swap.old}, in {base.removeprefix("./")}.')
    notes = ''.join(f'{wrapped(f"- {note}.", "  ")}\n' for note in swap.notes)
    return f'"""{title}\n\n{notes}"""' if notes else f'"""{title}"""'


def _ordered(tree: object, like: object) -> object:
    """Return a dict of dicts in the order of another."""
    if not isinstance(tree, dict) or '_delete_' in tree:
        return tree
    return {key: _ordered(tree[key], like[key]) for key in like if key in tree}


def _literal(value: object, column: int = 0, indent: int = 0) -> str:
    """Write a value as ruff would, beginning in ``column`` of a line that is indented by ``indent``."""
    if isinstance(value, _Name):
        return str(value)
    if not isinstance(value, dict | list):
        return repr(value)
    named = isinstance(value, dict)
    opening, closing = ('dict(', ')') if named else ('[', ']')
    items = [(f'{key}=', inner) for key, inner in value.items()] if named else [('', inner) for inner in value]
    line = opening + ', '.join(prefix + _literal(inner, -math.inf) for prefix, inner in items) + closing
    if column + len(line) < WIDTH:
        return line
    indent += 4
    lines = [f'{" " * indent}{prefix}{_literal(inner, indent + len(prefix), indent)},\n' for prefix, inner in items]
    return f'{opening}\n{"".join(lines)}{" " * (indent - 4)}{closing}'
