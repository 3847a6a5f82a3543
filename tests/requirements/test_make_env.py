"""The script behind ``make setup``: what it refuses, what it leaves behind, and that it does nothing twice."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'requirements' / 'make_env.py'


@pytest.fixture(scope='module')
def make_env():
    spec = importlib.util.spec_from_file_location('make_env', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / 'stack.txt'
    path.write_text('# comment\ntorch==1.0\n\nnvidia-cublas==13.0\ncuda-toolkit==13.0\nmmengine==0.1\n')
    return path


def test_every_lock_line_is_pinned(make_env):
    lines = make_env.lock_lines(SCRIPT.with_name('openmmlab.txt'))
    names = {line.split('==')[0] for line in lines}
    assert all('==' in line.split(';')[0] for line in lines)
    assert {'torch', 'torchvision', 'mmengine', 'mmcv-lite', 'openmim', 'opencv-python-headless'} <= names
    assert not {'opencv-python', 'opendatalab', 'openxlab'} & names
    setuptools = next(line for line in lines if line.startswith('setuptools=='))
    assert int(setuptools.split('==')[1].split('.')[0]) < 82


def test_the_second_stack_is_locked_too(make_env):
    """Under its own names, on the same torch."""
    first, second = (make_env.lock_lines(SCRIPT.with_name(f'{stack}.txt')) for stack in ('openmmlab', 'onedl'))
    names = {line.split('==')[0] for line in second}
    assert all('==' in line.split(';')[0] for line in second)
    assert {'onedl-mim', 'onedl-mmcv', 'onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmsegmentation'} <= names
    assert not {'mmcv', 'mmcv-lite', 'mmdet', 'mmengine', 'mmsegmentation', 'openmim', 'opencv-python'} & names
    assert [line for line in first if line.startswith('torch')] == [line for line in second if line.startswith('torch')]


def test_fingerprint_follows_lock_and_python(make_env, lock):
    first = make_env.fingerprint(lock, (3, 11))
    assert make_env.fingerprint(lock, (3, 11)) == first
    assert make_env.fingerprint(lock, (3, 12)) != first
    lock.write_text(lock.read_text() + 'extra==1\n')
    assert make_env.fingerprint(lock, (3, 11)) != first


def test_refuses_a_folder_of_someone_else(make_env, lock, tmp_path):
    (tmp_path / 'venv').mkdir()
    keep = tmp_path / 'venv' / 'thesis.tex'
    keep.write_text('years of work')
    with pytest.raises(make_env.SetupError, match='SW_MM_VENV'):
        make_env.make_environment(tmp_path / 'venv', lock)
    assert keep.read_text() == 'years of work'


def test_names_the_remedy_for_a_small_disk(make_env, tmp_path):
    with pytest.raises(make_env.SetupError, match=r'GiB free.*SW_MM_VENV'):
        make_env.check_machine(tmp_path / 'a' / 'venv', needed=2**60)


def test_names_the_remedy_for_missing_ensurepip(make_env, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'ensurepip' else find(name))
    with pytest.raises(make_env.SetupError, match=r'no ensurepip.*python3-venv'):
        make_env.check_machine(tmp_path / 'venv', needed=0)


@pytest.mark.parametrize(
    ('log', 'said'),
    [
        (['ERROR: Could not install: [Errno 28] No space left on device'], 'disk filled up'),
        (['ERROR: Could not find a version', 'ERROR: No matching distribution found for torch==1'], 'pip config list'),
        (['WARNING: Retrying after connection broken', 'ERROR: timed out'], 'pip config list'),
        (['ERROR: a wheel is broken'], 'a wheel is broken'),
        ([], 'no message'),
    ],
)
def test_pip_failures_become_one_line(make_env, log, said):
    line = str(make_env.explain(log, 'installing', Path('setup.log')))
    assert said in line
    assert '\n' not in line


def test_only_torch_decides_about_cuda_libraries(make_env, lock, tmp_path, monkeypatch):
    calls = []

    def record(python, arguments, *_, **__):
        text = [Path(a).read_text() if a.endswith('.txt') else a for a in arguments]
        calls.append(' '.join(text))

    monkeypatch.setattr(make_env, 'run_pip', record)
    monkeypatch.setattr(make_env, 'check_machine', lambda venv: None)
    monkeypatch.setattr(make_env.subprocess, 'run', lambda *a, **k: (tmp_path / 'venv').mkdir() or FakeDone)
    one, two = (checkout(tmp_path / name) for name in ('one', 'two'))
    make_env.make_environment(tmp_path / 'venv', lock, one)
    torch_call, rest, editable = calls[1:]
    assert '-c' in torch_call
    assert '--no-binary' not in rest
    assert 'nvidia-cublas==13.0' in torch_call  # as a constraint: a CPU build of torch brings none of them
    assert 'torch==1.0\nmmengine==0.1' in rest
    assert 'nvidia' not in rest
    assert str(one) in editable

    calls.clear()
    make_env.make_environment(tmp_path / 'venv', lock, one)
    assert calls == []
    make_env.make_environment(tmp_path / 'venv', lock, two)
    assert len(calls) == 1
    assert str(two) in calls[0]

    calls.clear()
    (two / 'pyproject.toml').write_text('[project.entry-points]')
    make_env.make_environment(tmp_path / 'venv', lock, two)
    assert len(calls) == 1


def test_forks_are_built_where_they_find_no_torch(make_env, lock, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(make_env, 'run_pip', lambda python, arguments, *_, **__: calls.append(arguments))
    monkeypatch.setattr(make_env.subprocess, 'run', lambda *a, **k: (tmp_path / 'venv').mkdir() or FakeDone)
    lock.write_text('torch==1.0\nonedl-mmcv==1.0\nonedl-mmengine==1.0\n')
    make_env.install(tmp_path / 'venv', lock, tmp_path / 'log')
    assert [word for word in calls[-1] if word.startswith('--')] == [
        '--only-binary=:all:',
        '--no-binary=onedl-mmcv',
        '--no-deps',
    ]


class FakeDone:
    returncode = 0


def checkout(folder):
    folder.mkdir()
    for name in ('pyproject.toml', 'setup.py'):
        (folder / name).touch()
    return folder


def test_a_failed_run_leaves_nothing_and_says_one_line(tmp_path):
    requirements = checkout(tmp_path / 'checkout') / 'requirements'
    requirements.mkdir()
    script = shutil.copy(SCRIPT, requirements)
    (requirements / 'tiny.txt').write_text('torch==0.0.0.1\ntorchvision==0.0.0.1\n')
    environment = {**os.environ, 'PIP_NO_INDEX': '1', 'TMPDIR': str(tmp_path)}
    command = [sys.executable, script, '--venv', str(tmp_path / 'venv'), '--stack', 'tiny']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert not (tmp_path / 'venv').exists()
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith('make setup: installing')
