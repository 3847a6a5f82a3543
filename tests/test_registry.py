"""Names in the libraries' registries, checked in fresh interpreters where imports matter."""

import importlib
import json
import subprocess
import sys
from types import ModuleType

import pytest

LIBRARIES = ('mmpretrain', 'mmseg', 'mmdet')


def run(code: str, *args: str):
    """Run code in a fresh interpreter and return the JSON of its last line."""
    done = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_imports_nothing_else():
    code = 'import json, sys; old = set(sys.modules); import sw_mm; print(json.dumps(sorted(set(sys.modules) - old)))'
    assert run(code) == ['sw_mm']


def test_registering_imports_no_library_and_mmpretrain_lists_our_models_once_imported():
    code = f"""
import json, sys
import sw_mm.registry
imported = [module for module in sys.modules if module.split('.')[0] in {LIBRARIES!r}]
from mmpretrain import list_models
print(json.dumps([imported, list_models('*sw*', task='Image Classification')]))
"""
    imported, listed = run(code)
    assert imported == []
    assert {'sw_imagenet', 'sw-small_8xb64-accum8-300e_in1k'} <= set(listed)


def test_a_lost_model_index_is_one_warning(tmp_path, monkeypatch, recwarn):
    from sw_mm import model_hub

    monkeypatch.setattr(model_hub, 'MIM', tmp_path)
    apis = ModuleType('mmpretrain.apis.model')
    for _ in range(2):
        model_hub.register_models(apis)
    (warning,) = recwarn
    assert f"{tmp_path}/model-index.yml is missing, so mmpretrain does not list sw_mm's models" in str(warning.message)


@pytest.mark.parametrize('library', LIBRARIES)
def test_names_answer_in_the_only_library_installed(library):
    """A scoped name is enough to make all names known."""
    code = f"""
import json, sys
import sw_mm.compat  # the library's models need it where mmcv carries no compiled operators
for other in {LIBRARIES!r}:
    if other != {library!r}:
        sys.modules[other] = None  # makes its import fail
import {library}.registry as library
found = [library.MODELS.get(name).__module__ for name in ('sw_mm.ShiftWiseNet', 'ShiftWiseNet')]
found.append(library.OPTIM_WRAPPER_CONSTRUCTORS.get('sw_mm.LayerDecayOptimWrapperConstructor').__module__)
found.append(library.WEIGHT_INITIALIZERS.get('sw_mm.OfficialPretrained').__module__)
print(json.dumps(found))
"""
    assert run(code) == ['sw_mm.backbones.shiftwise'] * 2 + ['sw_mm.engine.layer_decay', 'sw_mm.checkpoint.initializer']


def test_names_answer_in_all_libraries_together():
    import sw_mm.registry

    for library in LIBRARIES:
        models = importlib.import_module(f'{library}.registry').MODELS
        assert (
            models.get('ShiftWiseNet') is models.get('sw_mm.ShiftWiseNet') is sw_mm.registry.MODELS.get('ShiftWiseNet')
        )


def test_custom_imports_register_and_doing_so_again_changes_nothing(tmp_path):
    code = """
import importlib, json, sys
import mmengine.registry as roots
from mmengine import Config
Config.fromfile(sys.argv[1])
import sw_mm.registry
names = ('MODELS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'WEIGHT_INITIALIZERS', 'DATASETS')
state = lambda: [(getattr(sw_mm.registry, name), dict(getattr(roots, name).module_dict)) for name in names]
before = state()
Config.fromfile(sys.argv[1])
importlib.reload(sw_mm.registry)
print(json.dumps([roots.MODELS.get('ShiftWiseNet').__module__, state() == before]))
"""
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['sw_mm.registry'])\n")
    assert run(code, str(config)) == ['sw_mm.backbones.shiftwise', True]


def test_a_name_that_is_taken_is_not_shadowed():
    import mmengine.registry as roots

    from sw_mm.registry import MODELS, LazyRegistry, _child

    taken = type('ShiftWiseNet', (), {})
    root = roots.Registry('model', scope='mmengine')
    root.register_module(module=taken)
    child = _child(root, {'ShiftWiseNet': 'sw_mm.backbones'})
    assert isinstance(child, LazyRegistry)
    assert root.get('ShiftWiseNet') is taken
    assert root.get('sw_mm.ShiftWiseNet') is MODELS.get('ShiftWiseNet')


def test_a_library_keeps_its_own_names_and_data_sets():
    from mmseg.datasets import ADE20KDataset as Upstream
    from mmseg.registry import DATASETS

    ours = DATASETS.get('sw_mm.ADE20KDataset')
    assert DATASETS.get('ADE20KDataset') is Upstream
    assert ours is not Upstream
    assert issubclass(ours, Upstream)


def test_every_name_in_the_table_is_a_class_of_that_name():
    import sw_mm.registry as ours

    children = [value for value in vars(ours).values() if isinstance(value, ours.LazyRegistry)]
    names = {name: child.get(name).__name__ for child in children for name in child.modules}
    assert len(children) == 5
    assert names == {name: name for name in names}
    assert {'ShiftWiseNet', 'OfficialPretrained', 'CocoDataset', 'ImageNet'} <= set(names)


def test_an_unknown_name_is_not_found():
    from sw_mm.registry import MODELS

    with pytest.raises(KeyError, match='NoSuchNet'):
        MODELS.build(dict(type='sw_mm.NoSuchNet'))


def test_official_weights_are_not_loaded_as_if_they_were_ours():
    from mmpretrain import get_model

    tiny = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):
        get_model('replknet-31b_32xb64-300e_in1k', pretrained=True, backbone=dict(arch=tiny), head=dict(in_channels=8))


def test_mmpretrain_builds_our_models_by_name():
    from mmpretrain import get_model

    from sw_mm.registry import MODELS

    model = get_model('sw_imagenet', backbone=dict(width_factor=0.1), head=dict(in_channels=64))
    assert type(model.backbone) is MODELS.get('ShiftWiseNet')
    assert len(model._dataset_meta['classes']) == 1000
