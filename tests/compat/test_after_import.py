"""Patches reach a module whether it is imported before or after, and nothing is imported for them."""

import importlib
import subprocess
import sys
import textwrap
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from sw_mm.compat import _after_import
from sw_mm.compat._after_import import after_import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of an importable module, not yet imported."""
    name = 'a_module_to_patch'
    (tmp_path / f'{name}.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)
    _after_import._awaited.pop(name, None)


def double(module):
    module.value *= 2


def test_before_the_import(module):
    after_import(module, double)
    after_import(module, double)
    assert module not in sys.modules
    imported = importlib.import_module(module)
    assert imported.value == 4
    assert type(imported.__spec__.loader).__name__ == 'SourceFileLoader'
    assert importlib.reload(imported).value == 1  # once means once


def test_after_the_import(module):
    imported = importlib.import_module(module)
    after_import(module, double)
    assert imported.value == 2


def test_from_import_sees_the_patch(module, tmp_path):
    (tmp_path / 'a_user.py').write_text(f'from {module} import value\n')
    after_import(module, double)
    assert importlib.import_module('a_user').value == 2
    del sys.modules['a_user']


def test_failed_import_is_tried_again(module, tmp_path):
    after_import(module, double)
    file = tmp_path / f'{module}.py'
    file.write_text('raise OSError("not now")\n')
    with pytest.raises(OSError, match='not now'):
        importlib.import_module(module)
    file.write_text('value = 5\n\n\n')
    importlib.invalidate_caches()
    assert importlib.import_module(module).value == 10


IN_THE_MIDDLE = """
from sw_mm.compat._after_import import after_import
def double(module): module.value *= 2
after_import(__name__, double)
after_import(__name__, double)
value = 3
"""


def test_in_the_middle_of_the_import(module, tmp_path):
    (tmp_path / f'{module}.py').write_text(IN_THE_MIDDLE)
    imported = importlib.import_module(module)
    assert imported.value == 12
    assert type(imported.__spec__) is ModuleSpec
    imported.__spec__._initializing = False
    assert imported.value == 12


def test_import_that_fails_after_the_middle_is_tried_again(module, tmp_path):
    file = tmp_path / f'{module}.py'
    file.write_text(f'{IN_THE_MIDDLE}raise OSError("not now")')
    with pytest.raises(OSError, match='not now'):
        importlib.import_module(module)
    file.write_text('value = 5')
    importlib.invalidate_caches()
    assert importlib.import_module(module).value == 20


@pytest.mark.parametrize(
    ('first', 'patched'),
    [
        ('mmengine.optim', 'mmengine.optim.optimizer.amp_optimizer_wrapper:AmpOptimWrapper.__init__'),
        ('mmengine.infer', 'mmengine.infer.infer:BaseInferencer._init_model'),
        ('mmengine.runner.checkpoint', 'mmengine.runner.checkpoint:load_from_local'),
    ],
)
def test_any_module_may_be_the_first_import(first, patched):
    """The module is then in the middle of its own ``import torch``, which is what brings sw_mm along."""
    pytest.importorskip('mmengine')
    code = f"""
        import importlib, pkgutil
        importlib.import_module({first!r})
        print(pkgutil.resolve_name({patched!r}).__code__.co_filename)
    """
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()).parent == Path(_after_import.__file__).parent


def test_missing_module():
    after_import('no_such_module_at_all', double)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('no_such_module_at_all')
    _after_import._awaited.pop('no_such_module_at_all')


def test_importing_compat_is_light():
    code = """
        import sys
        import sw_mm.compat
        heavy = {'torch', 'torchvision', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'} & set(sys.modules)
        sys.exit(str(heavy) if heavy else 0)
    """
    subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True)
