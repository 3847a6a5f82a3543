"""Dynamic sparse training: masks on large kernels, or on any weights, that survive what training does."""

from .hook import SparseTrainingHook
from .masks import saved_masks

__all__ = ['SparseTrainingHook', 'saved_masks']
