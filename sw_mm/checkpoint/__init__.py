"""Checkpoints of any origin: reading them safely, recognising them, loading and converting them."""

from .convert import save, to_official, to_openmmlab
from .families import describe
from .initializer import OfficialPretrained
from .official import load_official, load_whole

__all__ = ['OfficialPretrained', 'describe', 'load_official', 'load_whole', 'save', 'to_official', 'to_openmmlab']
