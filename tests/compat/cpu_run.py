"""Two short runs of mmengine on the CPU under torchrun; each process writes its results to the folder given."""

import os
import sys
import warnings
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import sw_mm.compat  # noqa: F401


class Model(BaseModel):
    def __init__(self, norm: bool):
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(3, 2)
        self.norm = nn.SyncBatchNorm(2) if norm else nn.Identity()

    def forward(self, inputs, mode='tensor'):
        output = self.layer(torch.stack(inputs))
        self.dtype = output.dtype
        return {'loss': self.norm(output).float().square().sum(dim=1).mean()}


DATA = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))


def train(folder: Path, norm: bool, **optim_wrapper) -> Model:
    runner = Runner(
        Model(norm),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=row) for row in DATA],
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **optim_wrapper),
        default_hooks=dict(checkpoint=None),
        env_cfg=dict(dist_cfg=dict(backend='nccl')),
        launcher='pytorch',
        experiment_name=f'norm-{norm}',
        log_level='ERROR',
    )
    runner.train()
    return runner.model.module


def main(folder: Path) -> None:
    initial = Model(norm=False).layer.state_dict()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        plain = train(folder, norm=False)
        mixed = train(folder, norm=True, type='AmpOptimWrapper', dtype='bfloat16')
    result = dict(
        backend=torch.distributed.get_backend(),
        data=DATA,
        initial=initial,
        plain=plain.state_dict(),
        mixed=mixed.state_dict(),
        norm=type(mixed.norm).__name__,
        dtype=mixed.dtype,
        warned=any('SyncBatchNorm runs on GPUs only' in str(warning.message) for warning in caught),
    )
    torch.save(result, folder / f'rank{os.environ["RANK"]}.pt')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
