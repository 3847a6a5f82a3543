"""Recognise installations that cannot work, before they fail with something obscure.

``check`` runs when ``sw_mm.compat`` is imported, and already when torch is, where it can but warn.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from typing import Literal

# Distributions that install the same import packages: OpenMMLab's own, and those of the maintained forks.
OPENMMLAB = ('mmcv', 'mmcv-lite', 'mmdet', 'mmengine', 'mmpretrain', 'mmsegmentation', 'openmim')
ONEDL = ('onedl-mim', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmengine', 'onedl-mmpretrain', 'onedl-mmsegmentation')
# Releases whose import asserts mmcv<2.2.0.
MMCV_BOUND = {'mmdet': (3, 3, 0), 'mmsegmentation': (1, 2, 2)}
MIN_TORCH = (2, 4)

Stack = Literal['openmmlab', 'onedl', 'none']


def installed_versions() -> dict[str, str]:
    """Return the versions of the distributions that matter here, of those that are installed."""
    versions = {}
    for name in (*OPENMMLAB, *ONEDL, 'setuptools', 'torch'):
        # What a damaged record raises, or gives for a version, depends on the version of Python.
        with suppress(Exception):
            if version := metadata.version(name):
                versions[name] = version
    return versions


def detect(versions: Mapping[str, str] | None = None) -> Stack:
    """Return which family of libraries is installed; ``'openmmlab'`` if both are, which ``problems`` reports."""
    versions = installed_versions() if versions is None else versions
    if any(name in versions for name in OPENMMLAB):
        return 'openmmlab'
    return 'onedl' if any(name in versions for name in ONEDL) else 'none'


def problems(
    versions: Mapping[str, str] | None = None, has_module: Callable[[str], bool] = lambda name: bool(find_spec(name))
) -> list[str]:
    """List what is wrong with the installation, each with its remedy.

    Args:
        versions: Version of each installed distribution.
        has_module: Whether a top-level module can be imported.
    """
    versions = installed_versions() if versions is None else versions
    found = []

    official, forks = ([name for name in family if name in versions] for family in (OPENMMLAB, ONEDL))
    if official and forks:
        found.append(
            f'{", ".join(official)} and {", ".join(forks)} are both installed, and overwrite each other: they have the '
            f'same import names. Remove one family, for instance `pip uninstall {" ".join(forks)}`, then reinstall the '
            f'other with --force-reinstall'
        )
    if 'mmcv' in versions and 'mmcv-lite' in versions:
        found.append(
            'mmcv and mmcv-lite are both installed, and overwrite each other. Run `pip uninstall mmcv mmcv-lite` and '
            'install the one you want'
        )

    mmcv = next((name for name in ('mmcv', 'mmcv-lite') if name in versions), None)
    if mmcv and _release(versions[mmcv]) >= (2, 2):
        bound = [name for name, last in MMCV_BOUND.items() if () < _release(versions.get(name)) <= last]
        if bound:
            found.append(
                f'{mmcv} {versions[mmcv]} is too new for {" and ".join(f"{b} {versions[b]}" for b in bound)}. '
                f"Run `pip install '{mmcv}>=2.0.0rc4,<2.2.0'`"
            )

    users = [name for name in ('mmengine', 'openmim') if name in versions]
    if users and not has_module('pkg_resources'):
        found.append(
            f'{" and ".join(users)} import pkg_resources, which setuptools {versions.get("setuptools", "(missing)")} '
            "does not have. Run `pip install 'setuptools<82'`"
        )

    if () < _release(versions.get('torch')) < MIN_TORCH:
        found.append(f"torch {versions['torch']} is too old. Run `pip install 'torch>=2.4' torchvision`")
    return found


def check(
    versions: Mapping[str, str] | None = None, has_module: Callable[[str], bool] = lambda name: bool(find_spec(name))
) -> None:
    """Raise if the installed libraries cannot work together.

    Args:
        versions: Version of each installed distribution.
        has_module: Whether a top-level module can be imported.

    Raises:
        RuntimeError: Names every trap found, and its remedy.
    """
    if found := problems(versions, has_module):
        raise RuntimeError('this installation cannot work:\n' + '\n'.join(f'- {problem}' for problem in found))


def _release(version: str | None) -> tuple[int, ...]:
    """Return ``(2, 2, 0)`` for ``'2.2.0rc1+cu118'``, and ``()`` for what is no version."""
    number = re.match(r'\d+(\.\d+)*', version or '')
    return tuple(map(int, number[0].split('.'))) if number else ()
