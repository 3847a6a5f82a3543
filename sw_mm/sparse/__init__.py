"""Dynamic sparse training: masks on large kernels, or on any weights, that survive what training does."""

from .hook import SparseTrainingHook

__all__ = ['SparseTrainingHook']
