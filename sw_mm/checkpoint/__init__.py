"""Official checkpoints: reading them safely, and loading them as they are."""

from .initializer import OfficialPretrained
from .official import load_official

__all__ = ['OfficialPretrained', 'load_official']
