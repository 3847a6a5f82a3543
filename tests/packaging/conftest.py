"""Builds of the package, and an environment that holds an installed wheel beside the stack of the running one."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LEFT_OUT = ('.git', '.venv', 'data', 'work_dirs', 'build', 'dist', '*.egg-info', '__pycache__', '.*_cache')


def _run(*command, cwd=None, env=None, code=0):
    """Run a command and return what it printed; a failure shows all of it."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == code, f'{command} ended with {done.returncode}:\n{output}'
    return output


@pytest.fixture(scope='session')
def sources(tmp_path_factory):
    """A copy of the checkout, so that a build leaves nothing in it."""
    copy = tmp_path_factory.mktemp('sources') / 'checkout'
    shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    return copy


@pytest.fixture(scope='session')
def sdist(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp('sdist')
    build = f'import setuptools.build_meta as b; print(b.build_sdist({str(out)!r}))'
    _run(sys.executable, '-c', build, cwd=sources)
    return next(out.glob('*.tar.gz'))


def build_wheel(source, out):
    _run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', out, source)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='session')
def wheel(sources, tmp_path_factory):
    return build_wheel(sources, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='session')
def wheel_of_sdist(sdist, tmp_path_factory):
    return build_wheel(sdist, tmp_path_factory.mktemp('wheel-of-sdist'))


def make_overlay(folder, *install):
    """A virtual environment with its own sw_mm over the running environment's libraries.

    A line in a .pth file adds a folder to the path without reading that folder's own .pth files, so the editable
    sw_mm of the running environment stays out.
    """
    venv.create(folder)
    version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    site = folder / 'lib' / version / 'site-packages'
    (site / 'stack.pth').write_text(sysconfig.get_path('purelib') + '\n')
    _run(folder / 'bin' / 'python', '-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation', *install)
    return folder


def _overlay_env(folder):
    variables = {key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'PYTEST', 'VIRTUAL'))}
    variables.update(PATH=f'{folder / "bin"}:{os.environ["PATH"]}', OMP_WAIT_POLICY='PASSIVE')
    return variables


@pytest.fixture(scope='session')
def installed(wheel, tmp_path_factory):
    """Environment with the wheel installed."""
    return make_overlay(tmp_path_factory.mktemp('installed') / 'venv', wheel)


@pytest.fixture(scope='session')
def editable(sources, tmp_path_factory):
    """Environment with the sources installed as editable."""
    return make_overlay(tmp_path_factory.mktemp('editable') / 'venv', '--editable', sources)


@pytest.fixture(scope='session')
def run():
    return _run


@pytest.fixture(scope='session')
def overlay_env():
    return _overlay_env
