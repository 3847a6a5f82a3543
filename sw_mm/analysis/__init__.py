"""What a model costs and what it sees."""

from .complexity import Complexity, complexity
from .sparsity import WeightSparsity, sparsity, strip_masks

__all__ = ['Complexity', 'WeightSparsity', 'complexity', 'sparsity', 'strip_masks']
