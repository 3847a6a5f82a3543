"""What a checkpoint of mmengine leaves out, and a resumed run needs to equal one that was never stopped."""

import functools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info


def random_state() -> dict[str, Any]:
    """Return the states of the global generators of torch, NumPy and Python: tensors and numbers only."""
    _, keys, position, has_gauss, gauss = np.random.get_state()
    version, words, next_gauss = random.getstate()
    return dict(
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        numpy=[torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        python=[version, torch.tensor(words, dtype=torch.int64), next_gauss],
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what ``random_state`` returned; generators of devices that are not here are left out."""
    torch.set_rng_state(state['torch'].cpu())
    for index, device_state in enumerate(state['cuda'][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(device_state.cpu(), index)
    keys, position, has_gauss, gauss = state['numpy']
    np.random.set_state(('MT19937', keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, words, next_gauss = state['python']
    random.setstate((version, tuple(words.tolist()), next_gauss))


class ExactResume:
    """Random numbers, order of the data and half-accumulated gradients of a run, for a hook to save and restore.

    mmengine saves the seed alone. On resuming it plays the data of the past iterations again, which leaves the global
    generators where the past never had them; it draws another order if no seed was given; it drops gradients that were
    not yet applied; and workers that live through all epochs start anew. This puts each of them right: call its methods
    from the hook's methods of the same names. Validation leaves the random numbers of the training alone.

    With several processes, each gets its own random numbers back if ``AtomicCheckpointHook`` saved them, which has
    ``gather`` called in all processes. Where they were not gathered, or the number of processes is another, the first
    process goes on with its own and the others draw from seeds derived from them.
    """

    def __init__(self) -> None:
        self._resumed: dict[str, Any] | None = None
        self._before_val: dict[str, Any] | None = None
        self._gathered: tuple[list[dict[str, Any]], dict[str, Tensor]] | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def gather(self, runner: Runner) -> None:
        """Collect, in all processes, what the next ``state`` returns of them: random numbers, and waiting gradients."""
        if get_world_size() > 1:
            grads = _pending_grads(runner)
            for grad in grads.values():
                all_reduce(grad, op='mean')
            self._gathered = all_gather_object(self._before_val or random_state()), grads

    def state(self, runner: Runner) -> dict[str, Any]:
        """Return what to save."""
        # A checkpoint of the best result is written during validation.
        here = self._before_val or random_state()
        states, grads = self._gathered or ([here], _pending_grads(runner))
        self._gathered = None
        return dict(
            random=states,
            seed=runner.seed,
            sampler_seed=getattr(_sampler(runner.train_loop.dataloader), 'seed', None),
            grads={name: grad.cpu() for name, grad in grads.items()},
        )

    def after_load_checkpoint(self, state: dict[str, Any]) -> None:
        """Keep what was saved until the run has been built."""
        self._resumed = state

    def before_train(self, runner: Runner) -> None:
        """Give a resumed run the order of data, the workers' seeds and the gradients of the run that was stopped."""
        loop = runner.train_loop
        loader = loop.dataloader
        if loader.num_workers > 0:
            # Whenever it starts workers, a loader draws a number, by default from the generator of the training.
            loader.generator = torch.Generator().manual_seed(runner.seed)
            if isinstance(loop, EpochBasedTrainLoop):
                # torch guards the attribute; the data set that is put there has the same items.
                object.__setattr__(loader, 'dataset', _EpochSeeded(loader.dataset, runner.seed, self._epoch))
        if self._resumed is None:
            return
        if self._reseed(loader) and isinstance(loop, IterBasedTrainLoop):
            loader._iterator = None  # or workers that stay alive would keep their seeds
            loop.dataloader_iterator = type(loop.dataloader_iterator)(loader)
        parameters = dict(_module(runner).named_parameters())
        for name, grad in self._resumed['grads'].items():
            parameters[name].grad = grad.to(parameters[name])

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the random numbers, in a loop of iterations after the past data have been played again."""
        self._epoch.fill_(runner.epoch)
        state, self._resumed = self._resumed, None
        if state is None:
            return
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop) and loop.iter > 0:
            loop.dataloader_iterator = _ThenRestore(loop, loop.iter, state['random'])
        else:
            _restore(state['random'])

    def before_val(self, runner: Runner) -> None:
        """Note the random numbers of the training."""
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Go on with the random numbers of the training."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None

    def _reseed(self, loader: DataLoader) -> bool:
        """Set the seeds of sampler and workers; tell whether one of them was another."""
        changed = False
        sampler, seed = _sampler(loader), self._resumed['sampler_seed']
        if seed is not None and sampler.seed != seed:
            sampler.seed, changed = seed, True
        init, seed = loader.worker_init_fn, self._resumed['seed']
        if isinstance(init, functools.partial) and init.keywords.get('seed', seed) != seed:
            loader.worker_init_fn = functools.partial(init.func, *init.args, **{**init.keywords, 'seed': seed})
            changed = True
        if isinstance(loader.dataset, _EpochSeeded):
            loader.dataset._seed = seed
        if changed and hasattr(sampler, '_indices_of_rank'):  # mmengine's InfiniteSampler is under way already
            sampler.indices = sampler._indices_of_rank()
        return changed


class _ThenRestore:
    """The iterator of a loop, which restores random numbers behind the batches that are played again."""

    def __init__(self, loop: IterBasedTrainLoop, batches: int, states: list[dict[str, Any]]) -> None:
        self.loop, self.inner, self.batches, self.states = loop, loop.dataloader_iterator, batches, states

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        data = next(self.inner)
        self.batches -= 1
        if self.batches == 0:
            self._restore()
        return data

    def skip_iter(self, batches: int) -> None:
        """Pass over batches without loading them, as onedl-mmengine does."""
        self.inner.skip_iter(batches)
        self._restore()

    def _restore(self) -> None:
        _restore(self.states)
        self.loop.dataloader_iterator = self.inner


class _EpochSeeded(Dataset):
    """A data set whose random numbers in a worker depend on the epoch, not on how long the worker has lived.

    Its other attributes are those of the data set inside, also to set: hooks of mmdet exchange the pipeline.
    """

    OWN = ('_wrapped', '_seed', '_epoch', '_seeded_for')

    def __init__(self, dataset: Dataset, seed: int, epoch: Tensor) -> None:
        self._wrapped, self._seed, self._epoch = dataset, seed, epoch
        self._seeded_for = -1

    def __len__(self) -> int:
        return len(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        # The own ones are missing while this is copied to a worker; the last would pass by the seeds.
        if name in (*self.OWN, '__getitems__'):
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.OWN:
            super().__setattr__(name, value)
        else:
            setattr(self._wrapped, name, value)

    def __getitem__(self, index: int) -> Any:
        worker, epoch = get_worker_info(), int(self._epoch)
        if worker is not None and epoch != self._seeded_for:
            _seed_all(self._seed, get_rank(), worker.id, epoch)
            self._seeded_for = epoch
        return self._wrapped[index]


def _seed_all(*numbers: int) -> None:
    """Seed the generators of this process by a mixture of numbers."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _restore(states: list[dict[str, Any]]) -> None:
    """Restore the random numbers of this process, or derive others from the first one's."""
    rank = get_rank()
    if len(states) == get_world_size():
        set_random_state(states[rank])
        return
    set_random_state(states[0])
    if rank > 0:
        _seed_all(int(torch.randint(2**31, ())), rank)


def _sampler(loader: DataLoader) -> Any:
    """Return the sampler of images: behind a batch sampler if there is one."""
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def _module(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _pending_grads(runner: Runner) -> dict[str, Tensor]:
    """Return copies of the gradients that wait for more of them before they are applied."""
    if makes_update(runner):
        return {}
    return {name: p.grad.clone() for name, p in _module(runner).named_parameters() if p.grad is not None}


def makes_update(runner: Runner) -> bool:
    """Tell whether the weights are updated in this iteration, and gradients do not wait for more of them."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(w.should_update() for w in wrappers)
