"""Each known trap of an installation is recognised, and only that one."""

import os
import subprocess
import sys
import time

import pytest

from sw_mm.compat.stacks import check, detect, installed_versions, problems

GOOD = {
    'mmcv-lite': '2.1.0',
    'mmdet': '3.3.0',
    'mmengine': '0.10.7',
    'mmpretrain': '1.2.0',
    'mmsegmentation': '1.2.2',
    'openmim': '0.3.9',
    'setuptools': '81.0.0',
    'torch': '2.14.1',
}
FORKS = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1', 'torch': '2.10.0'}


def anything(name):
    return True


def nothing(name):
    return False


@pytest.mark.parametrize(
    'versions',
    [
        GOOD,
        {**GOOD, 'torch': '2.4.0+cpu'},
        {},
        {'mmengine': '0.10.7', 'mmcv': '2.2.0', 'mmpretrain': '1.2.0'},
        {**GOOD, 'mmcv-lite': '2.2.0', 'mmdet': '3.4.0', 'mmsegmentation': '1.3.0'},
        FORKS,
    ],
)
def test_sound_installations(versions):
    assert problems(versions, anything) == []
    check(versions, anything)


@pytest.mark.parametrize(
    ('versions', 'complaint', 'remedy'),
    [
        ({**GOOD, **FORKS}, 'both installed', 'pip uninstall onedl-mmcv onedl-mmdetection onedl-mmengine'),
        ({**GOOD, 'onedl-mmengine': '0.10.12'}, 'mmengine, .* and onedl-mmengine', 'pip uninstall onedl-mmengine`'),
        ({**GOOD, 'mmcv': '2.1.0'}, 'mmcv and mmcv-lite', 'pip uninstall mmcv mmcv-lite'),
        (
            {**GOOD, 'mmcv-lite': '2.2.0'},
            'mmcv-lite 2.2.0 is too new for mmdet 3.3.0 and mmsegmentation 1.2.2',
            "pip install 'mmcv-lite>=2.0.0rc4,<2.2.0'",
        ),
        (
            {'mmcv': '2.2.0+cu118', 'mmsegmentation': '1.2.2'},
            'too new for mmsegmentation 1.2.2',
            "pip install 'mmcv>=2",
        ),
        ({**GOOD, 'torch': '2.3.1+cu121'}, r'torch 2.3.1\+cu121 is too old', "pip install 'torch>=2.4'"),
    ],
)
def test_traps(versions, complaint, remedy):
    (problem,) = problems(versions, anything)
    with pytest.raises(RuntimeError, match=complaint):
        check(versions, anything)
    assert remedy in problem


def test_setuptools_without_pkg_resources():
    with pytest.raises(RuntimeError, match=r"mmengine and openmim .*setuptools 82.0.0.*pip install 'setuptools<82'"):
        check({**GOOD, 'setuptools': '82.0.0'}, nothing)
    with pytest.raises(RuntimeError, match=r'\(missing\)'):
        check({'mmengine': '0.10.7'}, nothing)
    assert problems(FORKS, nothing) == []


def test_all_traps_are_told_at_once():
    with pytest.raises(RuntimeError) as caught:
        check({**GOOD, **FORKS, 'mmcv-lite': '2.2.0', 'torch': '1.13.1'}, nothing)
    assert str(caught.value).count('\n- ') == 4


@pytest.mark.parametrize(
    ('versions', 'stack'), [(GOOD, 'openmmlab'), (FORKS, 'onedl'), ({'torch': '2.4.0'}, 'none'), ({}, 'none')]
)
def test_detect(versions, stack):
    assert detect(versions) == stack


def test_versions_that_are_none_count_for_nothing():
    for version in ('unknown', '', None):
        assert problems(dict.fromkeys(GOOD, version), anything) == []
        assert problems({**GOOD, 'mmcv-lite': '2.2.0', 'mmdet': version}, anything) != []


@pytest.fixture
def starting(tmp_path):
    """Call what torch calls, in a fresh interpreter whose distributions seem to include the given one."""

    def start(name, *options, record=None):
        folder = tmp_path / f'{name}-1.dist-info'
        folder.mkdir()
        if record is not None:
            (folder / 'METADATA').write_text(record)
        code = 'from sw_mm._startup import install; install(); import sys; print("sw_mm.compat" in sys.modules)'
        done = subprocess.run(
            [sys.executable, *options, '-c', code],
            env={**os.environ, 'PYTHONPATH': str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip(), done.stderr

    return start


def test_a_trap_is_only_warned_of_when_torch_is_imported(starting):
    installed, warned = starting('onedl_mmengine', record='Name: onedl-mmengine\nVersion: 0.10.12\n')
    assert installed == 'False'
    assert 'UserWarning: sw_mm: this installation cannot work' in warned
    assert 'pip uninstall onedl-mmengine' in warned


def test_nothing_stands_in_the_way_of_torch(starting):
    record = 'Name: onedl-mmengine\nVersion: 0.10.12\n'
    assert starting('onedl_mmengine', '-W', 'error', record=record) == ('False', '')


@pytest.mark.parametrize('record', [None, 'Name: mmcv-lite\n', 'Name: mmcv-lite\nVersion: unknown\n'])
def test_damaged_records_of_distributions_are_survived(starting, record):
    assert starting('mmcv_lite', record=record) == ('True', '')


def test_this_environment():
    installed_versions()
    start = time.perf_counter()
    found = problems()
    assert time.perf_counter() - start < 0.5  # 10 ms on an idle machine
    assert found == []
