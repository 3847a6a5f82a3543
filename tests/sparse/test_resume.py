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


@pytest.mark.parametrize(
    ('save_best', 'wanted'),
    [
        (None, []),
        ('auto', ['best_accuracy_top1']),
        (['accuracy/top1', 'accuracy/top4'], ['best_accuracy_top1', 'best_accuracy_top4']),
    ],
    ids=['no best', 'one best', 'two best'],
)
def test_validation_leaves_the_training_alone(make_runner, assert_same, tmp_path, save_best, wanted):
    """It draws random numbers, and the best checkpoint is written, and the last one again, in the middle of it."""
    loader = dict(dataset=dict(type='Noise'), sampler=dict(type='DefaultSampler', shuffle=False))
    validation = dict(
        val_dataloader=dict(batch_size=4, collate_fn=dict(type='default_collate'), **loader),
        val_evaluator=dict(type='Accuracy', topk=(1, 4)),
        val_cfg={},
        default_hooks=dict(checkpoint=dict(save_best=save_best)),
    )
    make_runner('plain').train()
    make_runner('whole', validation).train()
    best = sorted(path.name[:18] for path in (tmp_path / 'whole').glob('best_*.pth'))
    assert best == wanted
    make_runner('resumed', validation, resume=str(tmp_path / 'whole' / 'epoch_2.pth')).train()
    plain, whole, resumed = (final_state(tmp_path / name, 'epoch_4.pth') for name in ('plain', 'whole', 'resumed'))
    assert_same(plain, whole)
    assert_same(whole, resumed)


def test_a_dense_checkpoint_is_not_resumed(make_runner, tmp_path):
    make_runner('dense', dict(custom_hooks=[])).train()
    with pytest.raises(ValueError, match=r"holds no 'sparse'.*load_from"):
        make_runner(resume=str(tmp_path / 'dense' / 'epoch_2.pth')).train()
