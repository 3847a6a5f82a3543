"""Gradient checkpointing that leaves batch norm statistics alone the second time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


@contextmanager
def _spare_statistics(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of ``module`` update copies of their statistics, which are thrown away in the end.

    Copies, and not ``track_running_stats = False``: the recomputation must save the same tensors as the first pass.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    originals = [{name: norm._buffers[name] for name in _STATISTICS} for norm in norms]
    try:
        for norm, statistics in zip(norms, originals, strict=True):
            norm._buffers.update({name: t if t is None else t.clone() for name, t in statistics.items()})
        yield
    finally:
        for norm, statistics in zip(norms, originals, strict=True):
            norm._buffers.update(statistics)


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """Return ``module(x)``, keeping no activation of it: the backward pass computes them again.

    Gradients, batch norm statistics and random draws are those of a plain call.

    Args:
        module: What to run; its batch norms may be in training mode.
        x: Its input.
    """
    if torch.compiler.is_compiling():  # there the recomputation changes no buffer, and a context could not be traced
        return torch_checkpoint(module, x, use_reentrant=False)
    return torch_checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _spare_statistics(module))
    )
