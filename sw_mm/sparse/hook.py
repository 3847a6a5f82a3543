"""Dynamic sparse training as a hook of mmengine, for any model that any of the libraries trains."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from mmengine.dist import all_reduce, broadcast, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sw_mm.compat.torch_load import safe_load
from sw_mm.engine.resume import ExactResume, makes_update
from sw_mm.kernels.arguments import is_integer, number_in, positive_integer

from .budgets import erk_budget, snip_budget, uniform_budget
from .masks import Granularity, MaskedWeight, SparseLayer, find_layers, pack_bits, unpack_bits
from .scores import snip_scores
from .topology import cosine_prune_rate, draw_masks, exchange_units

KEY = 'sparse'
INITS = ('snip', 'erk', 'uniform', 'from_weights', 'checkpoint')


class SparseTrainingHook(Hook):
    """Keep part of the weights at zero while training, and move the zeros around.

    In a config::

        custom_hooks = [dict(type='sw_mm.SparseTrainingHook', sparsity=0.3, granularity='filter')]

    Masked weights get no gradient, so that neither clipping nor an optimiser sees them, and their moments are zero.
    Updates are counted where the optimiser really makes them: accumulated gradients count once, updates that a
    gradient scaler skips not at all. Every ``interval`` updates, part of the active units of each layer (filters, or
    single weights) is pruned, those of least magnitude, and as many grow; each layer keeps its count to the unit.
    Weights in an ``EMAHook`` are masked too. One process decides and sends its masks to the others.

    Masks, counts and random numbers are saved under ``checkpoint['sparse']``, and nothing in the state dict of the
    model. A resumed run equals one that was not stopped (see ``sw_mm.engine.ExactResume``); with
    ``sw_mm.AtomicCheckpointHook`` there is a whole checkpoint to resume at any time.

    Source: ShiftwiseConv, arXiv:2401.12736, section 3 (``'filter'``); SLaK, arXiv:2207.03620, section 4
    (``'weight'``); https://github.com/lidc54/shift-wiseConv and https://github.com/VITA-Group/SLaK.

    Args:
        sparsity: Part of the units that is zero, in [0, 1). Ignored where the masks come from elsewhere
            (``init='from_weights'`` or ``'checkpoint'``).
        granularity: ``'filter'`` masks whole filters of the large kernels, ``'weight'`` single weights.
        targets: What is masked: ``'large_kernels'``, ``'all'`` (also the other convolutions and linear layers, weight
            by weight), or regular expressions for names of parameters.
        init: How many units each layer keeps at first: ``'snip'`` (by the loss of one batch), ``'erk'`` or
            ``'uniform'``; which ones is drawn at random. ``'from_weights'`` keeps what is not zero in the loaded
            weights, but for tensors that are zero as a whole, which are initialised so and stay free;
            ``'checkpoint'`` keeps the masks saved in another run's file.
        checkpoint: That file.
        growth: ``'random'`` or ``'gradient'`` (RigL): where units grow.
        prune_rate: Part of the active units replaced at the first change; it falls along a cosine. 0 freezes the masks;
            None is 0.3, or 0 with ``init='from_weights'``.
        final_prune_rate: Where the cosine ends.
        interval: Updates of the optimiser between changes.
        gap: Every so many changes, the parallel filters of a layer are decided together; 0 does so never.
        density_floor: Least density of a layer when counts are chosen.
        seed: Of the draws; None takes the runner's.

    Raises:
        ValueError: If an argument is of another type or out of range; when training starts, also if nothing is left to
            mask, the model is sharded (FSDP, DeepSpeed), or the hook runs before an ``EMAHook`` or after a
            ``CheckpointHook``.
    """

    # After EMAHook (NORMAL), whose average it masks, and before CheckpointHook (VERY_LOW), which saves both.
    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        sparsity: float = 0.3,
        granularity: Granularity = 'filter',
        targets: Literal['large_kernels', 'all'] | Sequence[str] = 'large_kernels',
        init: Literal['snip', 'erk', 'uniform', 'from_weights', 'checkpoint'] = 'snip',
        checkpoint: str | None = None,
        growth: Literal['random', 'gradient'] = 'random',
        prune_rate: float | None = None,
        final_prune_rate: float = 0.005,
        interval: int = 100,
        gap: int = 131,
        density_floor: float = 0.05,
        seed: int | None = None,
    ) -> None:
        if init not in INITS:
            raise ValueError(f'init must be one of {INITS}; got {init!r}')
        if (init == 'checkpoint') != (checkpoint is not None):
            raise ValueError(f"checkpoint must be given with init='checkpoint', and only there; got {checkpoint!r}")
        if growth not in ('random', 'gradient'):
            raise ValueError(f"growth must be 'random' or 'gradient'; got {growth!r}")
        if seed is not None and not is_integer(seed):
            raise ValueError(f'seed must be an integer or None; got {seed!r}')
        self.sparsity = number_in('sparsity', sparsity, 0, 1)
        self.granularity = granularity
        self.targets = targets
        self.init = init
        self.checkpoint = checkpoint
        self.growth = growth
        if prune_rate is None:
            prune_rate = 0.0 if init == 'from_weights' else 0.3
        self.prune_rate = number_in('prune_rate', prune_rate, 0, 1)
        self.final_prune_rate = number_in('final_prune_rate', final_prune_rate, 0, 1)
        self.interval = positive_integer('interval', interval)
        self.gap = gap if gap == 0 else positive_integer('gap', gap)
        self.density_floor = number_in('density_floor', density_floor, 0, 1)
        if init not in ('from_weights', 'checkpoint') and self.density_floor > 1 - self.sparsity:
            raise ValueError(f'density_floor must be at most 1 - sparsity = {1 - self.sparsity}; got {density_floor!r}')
        self.seed = seed
        self.step = 0
        self.layers: list[SparseLayer] = []
        self._resumed: dict[str, Any] | None = None
        self._exact = ExactResume()
        self._changed = False
        self._dense_grads: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def weights(self) -> Iterator[MaskedWeight]:
        """All masked weights, in order."""
        return (weight for layer in self.layers for weight in layer.weights)

    @property
    def density(self) -> float:
        """Part of all units that the masks leave."""
        return sum(int(w.mask.sum()) for w in self.weights) / sum(w.size for w in self.weights)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what a run saved that is to be resumed; weights that are only loaded bring no masks."""
        if runner._resume:
            if KEY not in checkpoint:
                raise ValueError(
                    f'the checkpoint to resume holds no {KEY!r}: it was not trained with SparseTrainingHook. To start '
                    "from its weights, use load_from instead of resume, and init='from_weights' if they are sparse"
                )
            self._resumed = checkpoint[KEY]
            self._exact.after_load_checkpoint(self._resumed['run'])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save all that a resumed run needs."""
        checkpoint[KEY] = dict(self.state_dict(), run=self._exact.state(runner))

    def gather_state(self, runner: Runner) -> None:
        """Collect what only the other processes know; ``AtomicCheckpointHook`` calls it in all of them."""
        self._exact.gather(runner)

    def before_train(self, runner: Runner) -> None:
        """Make or restore the masks, and apply them."""
        _check_order(self, runner.hooks)
        self._exact.before_train(runner)
        model = _unwrap(runner.model)
        self.layers = find_layers(model, self.granularity, self.targets)
        self.steps = -(-runner.max_iters // getattr(runner.optim_wrapper, '_accumulative_counts', 1))
        self.generator = torch.Generator().manual_seed(runner.seed if self.seed is None else self.seed)
        if self._resumed is not None:
            self.load_state_dict(self._resumed)
        else:
            self._make_masks(runner)
        self._optimizer = self._find_optimizer(runner)
        for weight in self.weights:
            if self.prune_rate > 0 or not weight.mask.all():
                self._handles.append(weight.parameter.register_hook(_GradientMask(self, weight)))
        self._handles.append(self._optimizer.register_step_post_hook(self._after_step))
        self._enforce()
        self._mask_averages(runner)
        self._report(runner)
        print_log(f'sparse training: {len(self.layers)} layers, density {self.density:.4f}', logger='current')

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimiser."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def before_train_epoch(self, runner: Runner) -> None:
        """Go on with the random numbers of the run that was stopped."""
        self._exact.before_train_epoch(runner)

    def before_val(self, runner: Runner) -> None:
        """Keep validation away from the random numbers of the training."""
        self._exact.before_val(runner)

    def after_val(self, runner: Runner) -> None:
        """Go on with the random numbers of the training."""
        self._exact.after_val(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Mask the averaged weights if the masks changed, and record the density."""
        if makes_update(runner):
            self._dense_grads.clear()  # what is left belongs to an update that was skipped
        if self._changed:
            self._mask_averages(runner)
            self._changed = False
            self._report(runner)

    def _report(self, runner: Runner) -> None:
        """Record the density for the log."""
        runner.message_hub.update_scalar('train/density', self.density)

    def state_dict(self) -> dict[str, Any]:
        """Return masks (a bit a unit), counter and generator: tensors, numbers and strings only."""
        return dict(
            step=self.step,
            masks={weight.name: pack_bits(weight.mask) for weight in self.weights},
            sizes={weight.name: weight.size for weight in self.weights},
            generator=self.generator.get_state(),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, for the same masked weights.

        Raises:
            ValueError: If the state is that of other weights.
        """
        self._load_masks(state)
        self.step = state['step']
        self.generator.set_state(state['generator'].cpu())

    def _load_masks(self, state: dict[str, Any]) -> None:
        sizes = {weight.name: weight.size for weight in self.weights}
        if state['sizes'] != sizes:
            different = sorted(set(state['sizes'].items()) ^ set(sizes.items()))
            raise ValueError(
                f'the masks of the checkpoint belong to other weights: {different[0][0]} and {len(different) - 1} more '
                'differ; model, granularity and targets must be those of the run that saved it'
            )
        for weight in self.weights:
            weight.mask = unpack_bits(state['masks'][weight.name].cpu(), weight.size).to(weight.parameter.device)

    def _make_masks(self, runner: Runner) -> None:
        if self.init == 'checkpoint':
            file = safe_load(self.checkpoint)
            if KEY not in file:
                raise ValueError(f'checkpoint={self.checkpoint!r} holds no {KEY!r}, so no masks')
            self._load_masks(file[KEY])
            return
        if self.init == 'from_weights':
            for weight in self.weights:
                used = weight.per_unit(weight.parameter.detach().abs()) > 0
                weight.mask = used if used.any() else ~used
            if self.density == 1:
                print_log("init='from_weights' found no zeros in the weights: nothing is masked", logger='current')
            return
        if self.init == 'snip':
            loader = runner.train_dataloader
            scores = snip_scores(_unwrap(runner.model), loader, self.layers, self.generator)
        # Filters and weights are not comparable: each kind has a budget to itself.
        for kind in ('filter', 'weight'):
            chosen = [i for i, layer in enumerate(self.layers) if layer.weights[0].granularity == kind]
            layers = [self.layers[i] for i in chosen]
            if not layers:
                continue
            limits = 1 - self.sparsity, self.density_floor
            sizes = [layer.size for layer in layers]
            if self.init == 'snip':
                counts = snip_budget([scores[i] for i in chosen], *limits)
            elif self.init == 'erk':
                counts = erk_budget([layer.weights[0].parameter.shape for layer in layers], sizes, *limits)
            else:
                counts = uniform_budget(sizes, *limits)
            for layer, count in zip(layers, counts, strict=True):
                draw_masks(layer, count, self.generator)

    def _find_optimizer(self, runner: Runner) -> Optimizer:
        """Return the optimiser of the masked weights, which has to be one for all."""
        wrapper = runner.optim_wrapper
        optimizers = [w.optimizer for w in wrapper.values()] if hasattr(wrapper, 'values') else [wrapper.optimizer]
        masked = {id(weight.parameter) for weight in self.weights}
        for optimizer in optimizers:
            if masked <= {id(p) for group in optimizer.param_groups for p in group['params']}:
                return optimizer
        raise ValueError(
            'the masked weights must be trained by one optimiser; choose targets that are, or freeze the others '
            '(requires_grad=False)'
        )

    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        """Count an update that was made, and change the masks when it is time."""
        overflow = getattr(optimizer, 'found_inf', None)  # a fused optimiser is called, and skips by itself
        if overflow is not None and overflow.item():
            return
        self.step += 1
        if self.step % self.interval or self.prune_rate == 0:
            return
        number = self.step // self.interval
        rate = cosine_prune_rate(self.step, self.steps, self.prune_rate, self.final_prune_rate)
        growth = self._gains() if self.growth == 'gradient' else None
        if get_rank() == 0:
            for layer in self.layers:
                aligned = self.gap > 0 and number % self.gap == 0
                exchange_units(layer, rate, self.generator, growth, aligned)
        self._enforce()
        self._changed = True

    def _gains(self) -> Callable[[MaskedWeight], Tensor]:
        """Return what scores the units of a weight by the gradient that the masks kept from it."""
        grads = {w.name: self._dense_grads.pop(w.name, None) for w in self.weights}
        grads = {
            w.name: torch.zeros_like(w.parameter) if grads[w.name] is None else grads[w.name] for w in self.weights
        }
        if get_world_size() > 1:
            together = torch.cat([grad.flatten() for grad in grads.values()])
            all_reduce(together)
            parts = together.split([grad.numel() for grad in grads.values()])
            grads = {name: part.view_as(grads[name]) for name, part in zip(grads, parts, strict=True)}
        return lambda weight: weight.per_unit(grads[weight.name].abs())

    @torch.no_grad()
    def _enforce(self) -> None:
        """Send the masks of the first process to all, and zero what they mask in weights and optimiser."""
        if get_world_size() > 1:
            masks = [weight.mask for weight in self.weights]
            together = torch.cat(masks).to(torch.uint8)
            broadcast(together)
            for weight, mask in zip(self.weights, together.bool().split([len(m) for m in masks]), strict=True):
                weight.mask = mask
        for weight in self.weights:
            weight.apply()
            for value in self._optimizer.state.get(weight.parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.parameter.shape:
                    weight.apply(value)

    def _mask_averages(self, runner: Runner) -> None:
        """Mask the weights that an EMAHook averages."""
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                averages = dict(hook.ema_model.module.named_parameters())
                for weight in self.weights:
                    weight.apply(averages[weight.name].data)


def _check_order(hook: SparseTrainingHook, hooks: Sequence[Hook]) -> None:
    """Refuse a second hook, and priorities that would leave an average, or a checkpoint, behind the masks."""
    for place, other in enumerate(hooks):
        late = place > hooks.index(hook)
        if isinstance(other, SparseTrainingHook) and other is not hook:
            raise ValueError('custom_hooks has two SparseTrainingHooks; give one of them all targets')
        if (isinstance(other, EMAHook) and late) or (isinstance(other, CheckpointHook) and not late):
            raise ValueError(
                f'SparseTrainingHook must run after EMAHook and before CheckpointHook, but {type(other).__name__} is '
                'on the wrong side; leave out what sets their priority'
            )


class _GradientMask:
    """A hook on a weight's gradient that masks it, and keeps it whole where the masks are about to change by it."""

    def __init__(self, owner: SparseTrainingHook, weight: MaskedWeight) -> None:
        self.owner, self.weight = owner, weight

    def __call__(self, grad: Tensor) -> Tensor:
        owner, name = self.owner, self.weight.name
        if owner.growth == 'gradient' and (owner.step + 1) % owner.interval == 0:
            kept = owner._dense_grads
            kept[name] = kept[name] + grad if name in kept else grad.detach().clone()
        return grad * self.weight.shaped()


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside what distributes it over processes.

    Raises:
        ValueError: If its weights are not whole in each process.
    """
    inner = model.module if isinstance(model, DistributedDataParallel | DataParallel) else model
    if not is_model_wrapper(inner) and not any(hasattr(weight, 'device_mesh') for weight in inner.parameters()):
        return inner
    raise ValueError(
        f'SparseTrainingHook cannot train a {type(model).__name__}: it needs the whole weights in each process. Use '
        "model_wrapper_cfg=dict(type='MMDistributedDataParallel')"
    )
