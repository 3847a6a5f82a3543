"""Loads the scripts under tools/, which are no package, the way running them does."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture(scope='session')
def load_tool():
    """Function that imports a script by its dotted name below tools/, with its own folder first on the path."""

    def load(name: str):
        *folders, stem = name.split('.')
        sys.path.insert(0, str(TOOLS.joinpath(*folders)))
        try:
            return importlib.import_module(stem)
        finally:
            sys.path.pop(0)

    return load


@pytest.fixture(scope='session')
def tree():
    """Function that gives the content of each file of a folder, by its path in it."""
    return lambda folder: {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}
