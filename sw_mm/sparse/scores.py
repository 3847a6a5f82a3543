"""How much each unit matters to the loss of a batch, for budgets in the manner of SNIP."""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .masks import SparseLayer


def snip_scores(
    model: nn.Module, loader: DataLoader, layers: Sequence[SparseLayer], generator: torch.Generator
) -> list[Tensor]:
    """Score every unit by ``|weight * gradient|``, summed over the unit, of the loss of one batch.

    A copy of the model in training mode computes the loss; the model, the loader and the random numbers of the run stay
    as they are. Processes score a batch each and take the mean.

    Args:
        model: An mmengine model, without a wrapper.
        loader: Its training loader: data set, batch size and collation are used, its sampler is not.
        layers: What to score, weights of ``model``.
        generator: Of the CPU, in the same state in all processes; draws the batches.

    Returns:
        For each layer, one score a unit of each of its parallel weights, ``(weights, units)``.
    """
    size = getattr(loader, 'batch_size', None) or loader.batch_sampler.batch_size
    chosen = torch.randperm(len(loader.dataset), generator=generator).tolist()
    first = get_rank() * size
    indices = [chosen[i % len(chosen)] for i in range(first, first + size)]
    with _own_random_numbers(), torch.enable_grad():
        replica = copy.deepcopy(model).train()
        parameters = dict(replica.named_parameters())
        batch = loader.collate_fn([loader.dataset[i] for i in indices])
        batch = replica.data_preprocessor(batch, training=True)
        losses = replica(**batch, mode='loss') if isinstance(batch, dict) else replica(*batch, mode='loss')
        loss, _ = replica.parse_losses(losses)
        names = [weight.name for layer in layers for weight in layer.weights]
        grads = dict(
            zip(names, torch.autograd.grad(loss, [parameters[n] for n in names], allow_unused=True), strict=True)
        )
    scores = []
    for layer in layers:
        score = torch.zeros(len(layer.weights), layer.size, device=layer.weights[0].parameter.device)
        for row, weight in zip(score, layer.weights, strict=True):
            if grads[weight.name] is not None:
                row += weight.per_unit((weight.parameter.detach() * grads[weight.name]).abs())
        all_reduce(score)
        scores.append(score / get_world_size())
    return scores


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Give the global generators back the state they had."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(numpy)
