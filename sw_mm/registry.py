"""Make the classes of this package known to mmpretrain, mmsegmentation and mmdetection.

Importing this module is all it takes, and a config that names a type of scope ``sw_mm``
(``type='sw_mm.ShiftWiseNet'``, ``constructor='sw_mm.LayerDecayOptimWrapperConstructor'``) imports it by itself. With
mmcv-lite that is too late for mmseg's and mmdet's own models where torch does not load ``sw_mm.compat`` when it is
imported (torch 2.4, or ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``); ``custom_imports=dict(imports=['sw_mm.registry'])``
imports it first. Every class is then found

- under ``sw_mm.<Name>`` from any of the libraries, and
- under ``<Name>`` alone, through mmengine's root registries. A library looks there only after its own registry, so a
  name it already owns (mmpretrain's ``RepLKNet``) keeps its meaning, and no library has to be installed or imported
  here.

The checked data sets bear the names of the library classes that they extend; they are found under ``sw_mm.<Name>``
only, and each is imported, with its library, when it is asked for. The other classes are imported at once.
"""

from importlib import import_module

import mmengine.registry as roots
from mmengine.registry import Registry

import sw_mm.compat  # noqa: F401  (has to be in place before any library runs a model)
from sw_mm.compat._after_import import after_import
from sw_mm.model_hub import register_models

SCOPE = 'sw_mm'


class LazyRegistry(Registry):
    """Registry of scope ``sw_mm`` that imports a class when it is first asked for.

    Args:
        root: mmengine's root registry that becomes the parent.
        modules: Module of each class, by class name.
    """

    def __init__(self, root: Registry, modules: dict[str, str]):
        super().__init__(root.name, parent=root, scope=SCOPE)
        self.modules = modules

    def get(self, key: str) -> type | None:
        name = key.removeprefix(f'{SCOPE}.')
        if name in self.modules and name not in self.module_dict:
            self.register_module(name=name, module=getattr(import_module(self.modules[name]), name))
        return super().get(key)


def _child(root: Registry, modules: dict[str, str], bare: bool = True) -> Registry:
    """Put our registry under ``root``, once; if ``bare``, import its classes and mirror their names there."""
    child = root.children[SCOPE] if SCOPE in root.children else LazyRegistry(root, modules)
    for name in modules if bare else ():
        if name not in root.module_dict:
            root.register_module(name=name, module=child.get(name))
    return child


MODELS = _child(
    roots.MODELS,
    {
        'LargeKernelConvNeXt': 'sw_mm.backbones',
        'LargeKernelMobileNetV2': 'sw_mm.backbones',
        'RepLKNet': 'sw_mm.backbones',
        'SLaK': 'sw_mm.backbones',
        'ShiftWiseNet': 'sw_mm.backbones',
        'UniRepLKNet': 'sw_mm.backbones',
    },
)
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    roots.OPTIM_WRAPPER_CONSTRUCTORS,
    {
        'LayerDecayOptimWrapperConstructor': 'sw_mm.engine',
    },
)
HOOKS = _child(
    roots.HOOKS,
    {
        'AtomicCheckpointHook': 'sw_mm.engine',
        'SparseTrainingHook': 'sw_mm.sparse',
    },
)
WEIGHT_INITIALIZERS = _child(
    roots.WEIGHT_INITIALIZERS,
    {
        'OfficialPretrained': 'sw_mm.checkpoint',
    },
)
DATASETS = _child(
    roots.DATASETS,
    {
        'ADE20KDataset': 'sw_mm.datasets.segmentation',
        'CityscapesDataset': 'sw_mm.datasets.segmentation',
        'CocoDataset': 'sw_mm.datasets.detection',
        'ImageNet': 'sw_mm.datasets.classification',
        'ImageNet21k': 'sw_mm.datasets.classification',
        'LandCoverDataset': 'sw_mm.datasets.segmentation',
        'LandCoverTilesDataset': 'sw_mm.datasets.classification',
        'TreeCrownDataset': 'sw_mm.datasets.detection',
        'VOCDataset': 'sw_mm.datasets.detection',
    },
    bare=False,
)
after_import('mmpretrain.apis.model', register_models)
