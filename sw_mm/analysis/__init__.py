"""What a model costs and what it sees."""

from .complexity import Complexity, complexity

__all__ = ['Complexity', 'complexity']
