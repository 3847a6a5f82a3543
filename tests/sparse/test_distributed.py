"""Two processes train one net under one set of masks."""

import multiprocessing
import os
import socket

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

import sw_mm.sparse.hook as sparse_module

CONFIG = dict(
    launcher='pytorch',
    env_cfg=dict(dist_cfg=dict(backend='gloo')),
    train_dataloader=dict(batch_size=2),
    optim_wrapper=dict(accumulative_counts=2),
    default_hooks=dict(checkpoint=dict(interval=1)),
)


class Record(Hook):
    """Keeps what a process sees after every iteration."""

    priority = 'LOWEST'

    def __init__(self, sparse):
        self.sparse, self.seen = sparse, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        masks = torch.cat([weight.mask for weight in self.sparse.weights])
        weights = torch.cat([weight.parameter.detach().flatten() for weight in self.sparse.weights])
        self.seen.append(dict(masks=masks.clone(), weights=weights.clone(), loss=outputs['loss'].item()))


@pytest.fixture
def train_two(make_runner, sparse_hook, tmp_path):
    """Train in two processes, and return what each saw and how many broadcasts it took part in."""

    def work(rank, port, name, config, options):
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port)
        )
        count, broadcast = [0], sparse_module.broadcast

        def counted(*args):
            count[0] += 1
            broadcast(*args)

        sparse_module.broadcast = counted
        runner = make_runner(name, config, **options)
        record = Record(sparse_hook(runner))
        runner.register_hook(record)
        runner.train()
        assert get_rank() == rank
        torch.save(dict(seen=record.seen, broadcasts=count[0]), tmp_path / f'{name}_{rank}.pt')

    def train(name, config=CONFIG, **options):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context('fork')
        processes = [context.Process(target=work, args=(rank, port, name, config, options)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        return [torch.load(tmp_path / f'{name}_{rank}.pt', weights_only=False) for rank in range(2)]

    return train


@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_masks_are_the_same_everywhere(train_two, growth):
    """Each process scores, and grows by, data of its own; one broadcast at the start and one a change unite them."""
    first, second = train_two('run', init='snip', growth=growth)
    assert len(first['seen']) == 16
    for one, other in zip(first['seen'], second['seen'], strict=True):
        assert torch.equal(one['masks'], other['masks'])
        assert torch.equal(one['weights'], other['weights'])
        assert one['loss'] != other['loss'], 'both processes saw the same data'
        assert not one['weights'][~expand(one)].any()
    assert first['broadcasts'] == second['broadcasts'] == 1 + 8 // 3
    assert len({seen['masks'].numpy().tobytes() for seen in first['seen']}) == 3


def expand(seen):
    """The masks of the filters, for each of their nine numbers."""
    return seen['masks'].repeat_interleave(9)


def test_resumed_by_as_many_processes(train_two, assert_same, tmp_path):
    """Each process goes on with the random numbers it had."""
    whole = train_two('whole')
    path = str(tmp_path / 'whole' / 'epoch_2.pth')
    assert len(torch.load(path, weights_only=False)['sparse']['run']['random']) == 2
    for before, after in zip(whole, train_two('resumed', resume=path), strict=True):
        assert_same(before['seen'][8:], after['seen'])


def test_resumed_by_one_process(train_two, make_runner, sparse_hook, tmp_path):
    whole, _ = train_two('whole')
    runner = make_runner('resumed', resume=str(tmp_path / 'whole' / 'epoch_2.pth'))
    record = Record(sparse_hook(runner))
    runner.register_hook(record)
    runner.train()
    # As many iterations an epoch, as the batch is twice as large; each of them is an update.
    masks = [seen['masks'] for seen in record.seen]
    assert torch.equal(masks[0], whole['seen'][7]['masks'])
    assert not torch.equal(masks[-1], masks[0])
    assert all(mask.sum() == masks[0].sum() for mask in masks)
    assert sparse_hook(runner).step == 4 + len(masks)
