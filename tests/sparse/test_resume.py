"""A run that is stopped and resumed equals one that is not, bit for bit."""

import pytest
import torch

LOOPS = {
    'epochs': dict(train_cfg=dict(by_epoch=True, max_epochs=4)),
    'iterations': dict(
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=16),
        train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
        default_hooks=dict(checkpoint=dict(by_epoch=False, interval=7)),
    ),
}


def final_state(directory, name):
    saved = torch.load(directory / name, weights_only=False)
    return {key: saved[key] for key in ('state_dict', 'optimizer', 'sparse')}


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('seed', [0, None])
def test_resumed_run_equals_the_uninterrupted_one(make_runner, assert_same, tmp_path, loop, workers, seed):
    loader = dict(num_workers=workers, persistent_workers=workers > 0)
    config = {**LOOPS[loop], 'randomness': dict(seed=seed)}
    config['train_dataloader'] = {**config.get('train_dataloader', {}), **loader}
    first, last = ('epoch_2.pth', 'epoch_4.pth') if loop == 'epochs' else ('iter_7.pth', 'iter_16.pth')
    make_runner('whole', config).train()
    make_runner('resumed', config, resume=str(tmp_path / 'whole' / first)).train()
    assert_same(final_state(tmp_path / 'whole', last), final_state(tmp_path / 'resumed', last))
