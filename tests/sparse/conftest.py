"""A run of seconds: a tiny classifier on noise, with random numbers of every kind in its pipeline."""

import copy
import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

IMAGES = 16


class Noise(torch.utils.data.Dataset):
    """Images that depend on torch's, NumPy's and Python's global generators, as augmentations do."""

    metainfo: ClassVar[dict] = dict(classes=('a', 'b', 'c', 'd'))

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        from mmpretrain.structures import DataSample

        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        image = image * random.uniform(0.5, 1.5) + float(np.random.normal()) + 0.1 * torch.randn(3, 1, 1)
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 4))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets as small as these are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_runner(tmp_path: Path) -> Callable[..., Runner]:
    """Build a runner; options are those of the hook, but for ``name``, ``config`` (merged) and ``resume``."""
    from mmpretrain.registry import DATASETS

    import sw_mm.registry  # noqa: F401

    DATASETS.register_module(name='Noise', module=Noise, force=True)

    def build(name: str = 'run', config: dict | None = None, resume: bool | str = False, **options) -> Runner:
        base = dict(
            default_scope='mmpretrain',
            experiment_name=str(uuid.uuid4()),
            work_dir=str(tmp_path / name),
            model=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='sw_mm.ShiftWiseNet',
                    arch=dict(depths=(1, 1, 2, 1), channels=(8, 16, 24, 32)),
                    kernel_size=(13, 9, 7, 5),
                    drop_path_rate=0.2,
                ),
                head=dict(type='LinearClsHead', num_classes=4, in_channels=32),
            ),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='Noise'),
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3), clip_grad=dict(max_norm=1.0)),
            train_cfg=dict(by_epoch=True, max_epochs=4),
            default_hooks=dict(
                checkpoint=dict(type='sw_mm.AtomicCheckpointHook', interval=2),
                logger=dict(type='LoggerHook', interval=1),
            ),
            custom_hooks=[
                dict(type='sw_mm.SparseTrainingHook', **{'interval': 3, 'gap': 2, 'init': 'uniform', **options})
            ],
            randomness=dict(seed=0),
            resume=resume is not False,
            load_from=resume if isinstance(resume, str) else None,
            log_level='ERROR',
        )
        merged = Config(base)
        merged.merge_from_dict(copy.deepcopy(config or {}))  # which takes out `_delete_`
        return Runner.from_cfg(merged)

    return build


@pytest.fixture
def sparse_hook() -> Callable[[Runner], Hook]:
    """Find the hook of a runner."""
    return lambda runner: next(hook for hook in runner.hooks if type(hook).__name__ == 'SparseTrainingHook')


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """Compare nested states to the bit."""
    return _assert_same


def _assert_same(a: Any, b: Any, where: str = '') -> None:
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            _assert_same(*pair, f'{where}[{i}]')
    else:
        assert a == b, where
