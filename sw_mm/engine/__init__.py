"""Training machinery shared by the three task libraries."""

from .checkpoint_hook import AtomicCheckpointHook
from .layer_decay import LayerDecayOptimWrapperConstructor
from .resume import ExactResume

__all__ = ['AtomicCheckpointHook', 'ExactResume', 'LayerDecayOptimWrapperConstructor']
