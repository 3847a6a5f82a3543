"""Wheel, sdist and editable install all give ``sw_mm`` and ``sw_mm.kernels``, and never a top-level ``kernels``."""

import tarfile
import zipfile
from email import message_from_string

import pytest

IMPORTS = """
import importlib.util, sys
import sw_mm, sw_mm.kernels, sw_mm.backbones
assert importlib.util.find_spec('kernels') is None, 'a top-level kernels is importable'
print(sw_mm.__file__)
"""


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_packages_and_mim_data(wheel):
    files = names(wheel)
    tops = {name.split('/')[0] for name in files}
    assert {top for top in tops if not top.endswith('.dist-info')} == {'sw_mm'}
    assert {
        'sw_mm/__init__.py',
        'sw_mm/registry.py',
        'sw_mm/kernels/__init__.py',
        'sw_mm/kernels/_native.cpp',
        'sw_mm/kernels/shift_conv2d/__init__.py',
        'sw_mm/kernels/tuned/sm_90.csv',
        'sw_mm/backbones/shiftwise.py',
        'sw_mm/.mim/model-index.yml',
        'sw_mm/.mim/configs/upernet_sw_ade20k.py',
        'sw_mm/.mim/configs/shiftwise/metafile.yml',
        'sw_mm/.mim/configs/demo/upernet_sw_landcover.py',
        'sw_mm/.mim/tools/dataset_converters/landcover.py',
        'sw_mm/.mim/tools/dataset_converters/packaged_data.py',
        'sw_mm/.mim/tools/demos/segmentation.py',
    } <= files
    assert not [name for name in files if '__pycache__' in name or name.startswith('tests/')]


def test_metadata_keeps_mim_able_to_find_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = next(name.split('/')[0] for name in archive.namelist() if '.dist-info/' in name)
        metadata = message_from_string(archive.read(f'{info}/METADATA').decode())
        entry_points = archive.read(f'{info}/entry_points.txt').decode()
        top_level = archive.read(f'{info}/top_level.txt').decode().split()
    # mim takes the first file, or the first line of top_level.txt, for the package's folder: a console script or
    # another top-level package would sort before ours.
    assert top_level == ['sw_mm']
    assert 'scripts' not in entry_points
    assert metadata['Name'] == 'swmm'
    requires = metadata.get_all('Requires-Dist')
    mmcv = [line for line in requires if line.startswith('mmcv')]
    assert len(mmcv) == 1, "a compiled mmcv is the user's to choose, so only the extra `lite` names one"
    assert mmcv[0].startswith('mmcv-lite')
    assert mmcv[0].endswith('extra == "lite"')
    assert set(metadata.get_all('Provides-Extra')) == {'openmmlab', 'lite', 'onedl', 'dev'}


def test_sdist_builds_the_same_wheel(sdist, wheel, wheel_of_sdist):
    with tarfile.open(sdist) as archive:
        tops = {name.split('/', 2)[1] for name in archive.getnames() if name.count('/')}
    assert {'kernels', 'sw_mm', 'setup.py', 'pyproject.toml', 'LICENSE', 'README.md'} <= tops
    assert names(wheel_of_sdist) == names(wheel)


@pytest.mark.parametrize('kind', ['installed', 'editable'])
def test_imports(kind, request, run, overlay_env, tmp_path):
    folder = request.getfixturevalue(kind)
    where = run(folder / 'bin' / 'python', '-c', IMPORTS, cwd=tmp_path, env=overlay_env(folder)).strip()
    assert where.startswith(str(folder if kind == 'installed' else request.getfixturevalue('sources')))


@pytest.mark.parametrize('kind', ['installed', 'editable'])
def test_mim_data_is_beside_the_package(kind, request, run, overlay_env, tmp_path):
    folder = request.getfixturevalue(kind)
    code = (
        'import pathlib, sw_mm; root = pathlib.Path(sw_mm.__file__).parent / ".mim"; '
        'print((root / "configs" / "upernet_sw_ade20k.py").is_file(), (root / "model-index.yml").is_file())'
    )
    assert run(folder / 'bin' / 'python', '-c', code, cwd=tmp_path, env=overlay_env(folder)).split() == ['True'] * 2


def test_mim_search(installed, run, overlay_env, tmp_path):
    found = run(installed / 'bin' / 'python', '-m', 'mim', 'search', 'swmm', cwd=tmp_path, env=overlay_env(installed))
    for name in (
        'sw_imagenet',
        'slak-tiny_',
        'replknet-31b_',
        'unireplknet-t_',
        'convnext-tiny-k31_',
        'mobilenet-v2-k3_',
    ):
        assert name in found


@pytest.mark.parametrize('name', ['sw_imagenet', 'upernet_replknet-31b_32xb4-40k_ade20k-512x512'])
def test_mim_download(name, installed, run, overlay_env, tmp_path):
    """A config comes alone where no weights are linked, though other models of the package have some."""
    command = ['-m', 'mim', 'download', 'swmm', '--config', name, '--dest', '.']
    said = run(installed / 'bin' / 'python', *command, cwd=tmp_path, env=overlay_env(installed))
    assert f'Successfully dumped {name}.py' in said
    assert "type='sw_mm." in (tmp_path / f'{name}.py').read_text()


def test_mim_run(installed, run, overlay_env, tmp_path):
    command = ['-m', 'mim', 'run', 'swmm', 'dataset_converters:landcover', '--source', 'nowhere']
    said = run(installed / 'bin' / 'python', *command, cwd=tmp_path, env=overlay_env(installed), code=1)
    assert 'nowhere' in said


@pytest.mark.parametrize('recipe', ['ade20k'], indirect=True)
def test_mim_train_with_the_installed_config(installed, recipe, run, overlay_env, tmp_path):
    recipe.link_data(tmp_path)
    config = next(installed.glob(f'lib/*/site-packages/sw_mm/.mim/configs/{recipe.config.name}'))
    options = [f'{key}={value}'.replace(' ', '') for key, value in recipe.options.items()]
    command = ['-m', 'mim', 'train', recipe.library, config, '--work-dir', 'work_dir', '--cfg-options', *options]
    said = run(installed / 'bin' / 'python', *command, cwd=tmp_path, env=overlay_env(installed))
    assert 'Iter(train) [2/2]' in said
    assert 'mIoU: ' in said
