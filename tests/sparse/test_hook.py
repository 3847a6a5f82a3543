"""What the hook keeps true in a training run, where the official trainers do not."""

import copy
import itertools
from typing import ClassVar

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS, OPTIM_WRAPPERS
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor

from sw_mm.sparse import SparseTrainingHook
from sw_mm.sparse.hook import _unwrap

SLAK = dict(
    model=dict(
        backbone=dict(
            _delete_=True,
            type='sw_mm.SLaK',
            arch=dict(depths=(1, 1, 2, 1), channels=(8, 16, 24, 32)),
            kernel_size=(13, 9, 7, 7),
            width_factor=1.0,
        )
    )
)


class Watch(Hook):
    """Calls a function after every iteration, behind all other hooks."""

    priority = 'LOWEST'

    def __init__(self, function):
        self.function = function

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.function(runner)


def watch(runner, function):
    runner.register_hook(Watch(function))
    return runner


def outside(weight):
    """Which numbers of a weight are masked."""
    return ~weight.shaped().expand_as(weight.parameter)


def check_masked(runner, sparse):
    for weight in sparse.weights:
        assert not weight.parameter.detach()[outside(weight)].any()
        for value in runner.optim_wrapper.optimizer.state[weight.parameter].values():
            if value.shape == weight.parameter.shape:
                assert not value[outside(weight)].any()


@pytest.mark.parametrize('init', ['snip', 'erk', 'uniform'])
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_filters_of_sw(make_runner, sparse_hook, init, growth):
    """All paths are masked from the first step on, moments with them, and no count ever changes."""
    runner = make_runner(init=init, growth=growth, sparsity=0.4)
    sparse, seen = sparse_hook(runner), []

    def check(runner):
        check_masked(runner, sparse)
        seen.append([int(weight.mask.sum()) for weight in sparse.weights])

    masks = []
    watch(runner, check)
    watch(runner, lambda _: masks.append([weight.mask.clone() for weight in sparse.weights]))
    runner.train()
    assert len(seen) == 16
    assert all(counts == seen[0] for counts in seen)
    units = sum(layer.size for layer in sparse.layers)
    assert sum(seen[0]) == 2 * round(0.6 * units)
    assert all(min(counts) > 0 for counts in seen)
    changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(masks)]
    assert [i + 2 for i, change in enumerate(changed) if change] == [3, 6, 9, 12, 15]


def test_all_paths_are_masked_before_the_first_step(make_runner, sparse_hook):
    """The official code masks the first path alone until it has made a step."""
    runner, seen = make_runner(), []
    sparse = sparse_hook(runner)

    class First(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append([bool(weight.parameter.detach()[outside(weight)].any()) for weight in sparse.weights])

    runner.register_hook(First())
    runner.train()
    assert len(seen[0]) == 10
    assert not any(seen[0])


@pytest.mark.parametrize('targets', ['large_kernels', 'all'])
def test_weights_of_slak(make_runner, sparse_hook, targets):
    runner = make_runner(config=SLAK, granularity='weight', targets=targets, init='snip', prune_rate=0.5, sparsity=0.4)
    sparse = sparse_hook(runner)
    watch(runner, lambda runner: check_masked(runner, sparse)).train()
    sizes, kept = [w.size for w in sparse.weights], [int(w.mask.sum()) for w in sparse.weights]
    assert sum(kept) == round(0.6 * sum(sizes))
    assert all(count >= int(0.05 * size) for count, size in zip(kept, sizes, strict=True))


def test_norms_and_biases_stay_free(make_runner, sparse_hook):
    runner = make_runner(targets='all', sparsity=0.5)
    runner.train()
    masked = {weight.name for weight in sparse_hook(runner).weights}
    free = {name: p for name, p in runner.model.named_parameters() if name not in masked}
    assert all(p.dim() < 2 or name.endswith(('.gamma', '.beta')) for name, p in free.items())
    assert any(name.endswith('bias') for name in free)
    assert len(masked) > 20


def test_paths_are_decided_together_every_gap(make_runner, sparse_hook):
    runner = make_runner(interval=2, gap=3)
    sparse, equal = sparse_hook(runner), []

    def compare(runner):
        equal.append(all(torch.equal(*(weight.mask for weight in layer.weights)) for layer in sparse.layers))

    watch(runner, compare).train()
    # Drawn together, changed one by one after updates 2 and 4, and together after 6, and so on.
    assert equal == [True, *[False] * 4, True, True, *[False] * 4, True, True, *[False] * 3]


def test_nothing_enters_the_state_dict(make_runner, tmp_path):
    runner = make_runner()
    keys = set(runner.model.state_dict())
    runner.train()
    saved = torch.load(tmp_path / 'run' / 'epoch_4.pth', weights_only=False)
    assert set(saved['state_dict']) == keys
    assert saved['sparse']['masks'].keys() == saved['sparse']['sizes'].keys()
    assert all(mask.dtype == torch.uint8 for mask in saved['sparse']['masks'].values())


def test_updates_are_counted_where_they_are_made(make_runner, sparse_hook):
    """16 iterations with 3 accumulated are 6 updates: five full ones and a last one of what is left."""
    runner = make_runner(config=dict(optim_wrapper=dict(accumulative_counts=3)), interval=2)
    sparse = sparse_hook(runner)
    runner.train()
    assert sparse.step == sparse.steps == 6


class Scaled(OptimWrapper):
    """Scales losses like AmpOptimWrapper, on the CPU and so high that the first updates are skipped."""

    def __init__(self, fused=False, **kwargs):
        super().__init__(**kwargs)
        self.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127, backoff_factor=2.0**-60)

    def backward(self, loss, **kwargs):
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_skipped_updates_do_not_count(make_runner, sparse_hook, fused, growth):
    """The official code calls its mask step in no run with AMP, so that sparsity is off without a word."""
    OPTIM_WRAPPERS.register_module(name='Scaled', module=Scaled, force=True)
    config = dict(optim_wrapper=dict(type='Scaled', optimizer=dict(fused=fused)))
    runner = make_runner(config=config, growth=growth)
    sparse, scales, grads = sparse_hook(runner), [], []

    def check(runner):
        check_masked(runner, sparse)
        scales.append(runner.optim_wrapper.scaler.get_scale())
        grads.append(len(sparse._dense_grads))

    watch(runner, check).train()
    skipped = sum(now < before for before, now in zip([2.0**127, *scales], scales, strict=False))
    assert skipped > 0
    assert sparse.step == 16 - skipped
    assert not any(grads), 'gradients of a skipped update are kept'


def test_bfloat16_autocast(make_runner, sparse_hook):
    runner = make_runner(config=dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='bfloat16')))
    sparse = sparse_hook(runner)
    watch(runner, lambda runner: check_masked(runner, sparse)).train()
    assert sparse.step == 16


def test_clipping_sees_what_is_trained(make_runner, sparse_hook):
    """Masked weights have no gradient, so the norm that is clipped is that of the others."""
    runner = make_runner()
    sparse, norms = sparse_hook(runner), []
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    clip = runner.optim_wrapper._clip_grad

    def check():
        for weight in sparse.weights:
            assert not weight.parameter.grad[outside(weight)].any()
        norms.append(nn.utils.get_total_norm([p.grad for p in runner.model.parameters() if p.grad is not None]))
        clip()

    runner.optim_wrapper._clip_grad = check
    runner.train()
    assert len(norms) == 16


def test_momentum_of_sgd(make_runner, sparse_hook):
    optimizer = dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1)
    runner = make_runner(config=dict(optim_wrapper=dict(optimizer=optimizer)))
    sparse = sparse_hook(runner)
    watch(runner, lambda runner: check_masked(runner, sparse)).train()


def test_weights_that_grow_start_anew(make_runner, sparse_hook):
    """At zero, with no moments: the official code leaves stale ones, and regrown filters jump."""
    runner = make_runner(interval=4, prune_rate=0.6)
    sparse, before = sparse_hook(runner), []

    def check(runner):
        masks = [weight.mask.clone() for weight in sparse.weights]
        if sparse.step % 4 == 0:
            for weight, old in zip(sparse.weights, before[-1], strict=True):
                grown = weight.mask & ~old
                assert grown.any()
                state = runner.optim_wrapper.optimizer.state[weight.parameter]
                for value in (weight.parameter.detach(), state['exp_avg'], state['exp_avg_sq']):
                    assert not value[grown].any()
        before.append(masks)

    watch(runner, check).train()


class TestAverage:
    EMA: ClassVar[dict] = dict(type='EMAHook', momentum=0.1)

    def config(self, *more):
        return dict(
            custom_hooks=[dict(type='sw_mm.SparseTrainingHook', interval=3, gap=2, init='uniform'), self.EMA, *more]
        )

    def test_averages_are_masked(self, make_runner, sparse_hook, tmp_path):
        runner = make_runner(config=self.config())
        sparse = sparse_hook(runner)
        ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')

        def check(runner):
            averages = dict(ema.ema_model.module.named_parameters())
            for weight in sparse.weights:
                assert not averages[weight.name].detach()[outside(weight)].any()
                assert averages[weight.name].detach()[~outside(weight)].any()

        watch(runner, check).train()
        # mmengine saves the average as the state dict, for deployment.
        saved = torch.load(tmp_path / 'run' / 'epoch_4.pth', weights_only=False)
        for weight in sparse.weights:
            assert not saved['state_dict'][weight.name][outside(weight)].any()
            assert not saved['ema_state_dict'][f'module.{weight.name}'][outside(weight)].any()

    def test_order(self, make_runner):
        runner = make_runner(config=self.config())
        names = [type(hook).__name__ for hook in runner.hooks]
        order = [names.index(name) for name in ('EMAHook', 'SparseTrainingHook', 'AtomicCheckpointHook')]
        assert order == sorted(order)

    @pytest.mark.parametrize(('hook', 'priority'), [('EMAHook', 'LOW'), ('AtomicCheckpointHook', 'HIGH')])
    def test_another_order_is_refused(self, make_runner, hook, priority):
        config = self.config()
        if hook == 'EMAHook':
            config['custom_hooks'][1] = dict(self.EMA, priority=priority)
        else:
            config['default_hooks'] = dict(checkpoint=dict(priority=priority))
        with pytest.raises(ValueError, match=f'after EMAHook and before CheckpointHook, but {hook}'):
            make_runner(config=config).train()

    def test_two_hooks_are_refused(self, make_runner):
        with pytest.raises(ValueError, match='two SparseTrainingHooks'):
            make_runner(config=self.config(dict(type='sw_mm.SparseTrainingHook'))).train()


class TestFineTuning:
    """Masks from the weights that are loaded, and kept as they are."""

    def trained(self, make_runner, tmp_path, **options):
        make_runner('before', **options).train()
        return str(tmp_path / 'before' / 'epoch_4.pth')

    @pytest.mark.parametrize(
        'options',
        [
            dict(granularity='filter'),
            dict(granularity='weight', config=SLAK, targets='all', init='erk'),
        ],
        ids=['filter', 'weight'],
    )
    def test_from_weights(self, make_runner, sparse_hook, tmp_path, options):
        options = copy.deepcopy(options)
        path = self.trained(make_runner, tmp_path, **options)
        loaded = torch.load(path, weights_only=False)['state_dict']
        config = {**options.pop('config', {}), 'load_from': path}
        runner = make_runner('after', config, **{**options, 'init': 'from_weights'})
        runner.train()
        sparse = sparse_hook(runner)
        assert sparse.density < 0.75
        after = runner.model.state_dict()
        for weight in sparse.weights:
            old, new = loaded[weight.name].bool(), after[weight.name].bool()
            assert not (new & ~old).any(), 'a zero came alive'
            assert new.sum() > 0.99 * old.sum()
        free = [name for name in loaded if name.endswith(('bias', 'norm.weight')) and loaded[name].is_floating_point()]
        assert len(free) > 20
        assert all(not torch.equal(loaded[name], after[name]) for name in free)

    def test_what_is_zero_as_a_whole_is_free(self, make_runner, sparse_hook):
        """The official downstream code freezes a tensor that is only initialised to zero for ever."""
        runner = make_runner(init='from_weights', targets=[r'head\.fc\.weight', r'backbone\..*LoRAs.*'])
        nn.init.zeros_(runner.model.head.fc.weight)
        runner.model.init_weights = lambda: None
        runner.train()
        assert runner.model.head.fc.weight.all()
        assert sparse_hook(runner).density == 1

    def test_dense_weights_train_densely(self, make_runner, sparse_hook):
        """The official downstream code crashes where no checkpoint is loaded."""
        runner = make_runner(init='from_weights')
        runner.train()
        assert sparse_hook(runner).density == 1

    def test_masks_of_another_run(self, make_runner, sparse_hook, tmp_path):
        path = self.trained(make_runner, tmp_path)
        masks = torch.load(path, weights_only=False)['sparse']['masks']
        runner = make_runner('after', init='checkpoint', checkpoint=path, prune_rate=0)
        runner.train()
        assert all(torch.equal(sparse_hook(runner).state_dict()['masks'][name], mask) for name, mask in masks.items())

    def test_masks_of_another_net(self, make_runner, tmp_path):
        path = self.trained(make_runner, tmp_path)
        with pytest.raises(ValueError, match='belong to other weights'):
            make_runner('after', SLAK, granularity='weight', init='checkpoint', checkpoint=path).train()

    def test_a_file_without_masks(self, make_runner, tmp_path):
        torch.save(dict(state_dict={}), tmp_path / 'dense.pth')
        with pytest.raises(ValueError, match="holds no 'sparse'"):
            make_runner(init='checkpoint', checkpoint=str(tmp_path / 'dense.pth')).train()


def test_snip_leaves_the_run_alone(make_runner, sparse_hook):
    """Scoring draws nothing from the global generators, and changes neither weights nor running statistics."""
    states = []
    for init in ('uniform', 'snip'):
        runner = make_runner(init=init, sparsity=0.0, density_floor=0.0, prune_rate=0)
        losses = []
        watch(
            runner, lambda runner, losses=losses: losses.append(runner.message_hub.get_scalar('train/loss').current())
        )
        runner.train()
        states.append((losses, runner.model.state_dict()))
    (losses, weights), (others, other_weights) = states
    assert losses == others
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


def test_the_log_shows_the_density(make_runner, tmp_path):
    make_runner(sparsity=0.25).train()
    (log,) = (tmp_path / 'run').rglob('scalars.json')
    assert log.read_text().count('"density": 0.7') == 16


def test_training_again_counts_each_update_once(make_runner, sparse_hook):
    runner = make_runner(config=dict(train_cfg=dict(max_epochs=1)))
    runner.train()
    optimizer = runner.optim_wrapper.optimizer
    assert sparse_hook(runner).step == 4
    optimizer.step()
    assert sparse_hook(runner).step == 4, 'the hook is still on the optimiser'


def test_sharded_models_are_refused():
    class Engine(nn.Linear):
        """Stands for DeepSpeed's, which cannot be imported where DeepSpeed is not installed."""

    MODEL_WRAPPERS.register_module(module=Engine)
    try:
        with pytest.raises(ValueError, match=r'cannot train a Engine.*MMDistributedDataParallel'):
            _unwrap(Engine(2, 2))
    finally:
        MODEL_WRAPPERS.module_dict.pop('Engine')
    sharded = MMFullyShardedDataParallel.__new__(MMFullyShardedDataParallel)
    with pytest.raises(ValueError, match=r'cannot train a MMFullyShardedDataParallel'):
        _unwrap(sharded)


def test_weights_that_are_sharded_one_by_one_are_refused(tmp_path):
    """FSDP 2 wraps no model, it replaces the parameters."""
    mesh = torch.distributed.device_mesh.DeviceMesh
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = nn.Linear(4, 4)
        model.weight = nn.Parameter(distribute_tensor(model.weight.detach(), mesh('cpu', [0]), [Shard(0)]))
        with pytest.raises(ValueError, match='cannot train a Linear'):
            _unwrap(model)
    finally:
        torch.distributed.destroy_process_group()


def test_weights_of_two_optimisers_are_refused(make_runner):
    runner = make_runner()
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    group = runner.optim_wrapper.optimizer.param_groups[0]
    group['params'] = [p for p in group['params'] if p.dim() < 4]
    with pytest.raises(ValueError, match='one optimiser'):
        runner.train()


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(sparsity=1.0), 'sparsity'),
        (dict(sparsity='0.3'), 'sparsity'),
        (dict(init='magnitude'), 'init'),
        (dict(init='checkpoint'), 'checkpoint'),
        (dict(checkpoint='a.pth'), 'checkpoint'),
        (dict(growth='momentum'), 'growth'),
        (dict(prune_rate=1.0), 'prune_rate'),
        (dict(final_prune_rate=-0.1), 'final_prune_rate'),
        (dict(interval=0), 'interval'),
        (dict(gap=-1), 'gap'),
        (dict(sparsity=0.9, density_floor=0.2), 'density_floor'),
        (dict(seed=0.5), 'seed'),
    ],
)
def test_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        SparseTrainingHook(**options)
