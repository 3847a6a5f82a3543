"""``--launcher pytorch`` and mixed precision on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

import sw_mm.compat  # noqa: F401

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='with a GPU mmengine is left as it is')

RUN = Path(__file__).with_name('cpu_run.py')


@cpu_only
def test_two_processes_train_as_one(tmp_path):
    """Gradients are averaged over gloo: two processes with half of each batch take the steps of a single one."""
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    subprocess.run([*torchrun, RUN, tmp_path], check=True)
    ranks = [torch.load(tmp_path / f'rank{rank}.pt') for rank in range(2)]
    assert [rank['backend'] for rank in ranks] == ['gloo', 'gloo']

    layer = nn.Linear(3, 2)
    layer.load_state_dict(ranks[0]['initial'])
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for batch in ranks[0]['data'].split(8):
        optimizer.zero_grad()
        layer(batch).square().sum(dim=1).mean().backward()
        optimizer.step()
    for key, weight in layer.state_dict().items():
        assert torch.equal(ranks[0]['plain'][f'layer.{key}'], ranks[1]['plain'][f'layer.{key}'])
        torch.testing.assert_close(ranks[0]['plain'][f'layer.{key}'], weight)
        assert not torch.equal(weight, ranks[0]['initial'][key])

    # SyncBatchNorm became BatchNorm, with a warning; the averaged step went through bfloat16.
    for rank in ranks:
        assert rank['warned']
        assert rank['norm'] == '_BatchNormXd'
        assert rank['dtype'] == torch.bfloat16
    assert torch.equal(ranks[0]['mixed']['layer.weight'], ranks[1]['mixed']['layer.weight'])
    assert not torch.equal(ranks[0]['mixed']['norm.running_mean'], ranks[1]['mixed']['norm.running_mean'])


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, inputs, mode='tensor'):
        output = self.layer(inputs)
        self.dtype = output.dtype
        return {'loss': output.float().square().mean()}


def build(**options):
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return model, OPTIM_WRAPPERS.build(dict(type='AmpOptimWrapper', optimizer=optimizer, **options))


@cpu_only
@pytest.mark.parametrize('options', [dict(dtype='bfloat16'), dict(dtype=torch.bfloat16), dict(loss_scale='dynamic')])
def test_mixed_precision_step(options):
    torch.manual_seed(0)
    model, wrapper = build(clip_grad=dict(max_norm=0.1), **options)
    assert isinstance(wrapper, AmpOptimWrapper)
    inputs = torch.randn(2, 4)
    before = model.layer.weight.detach().clone()
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(inputs)['loss']
    (grad,) = torch.autograd.grad(loss, model.layer.weight)
    grad *= 0.1 / (grad.norm() + 1e-6)

    model.train_step(dict(inputs=inputs), wrapper)
    assert model.dtype == torch.bfloat16
    assert model.layer.weight.dtype == torch.float32
    torch.testing.assert_close(model.layer.weight, before - 0.5 * grad)


@cpu_only
def test_mixed_precision_accumulates_and_resumes():
    model, wrapper = build(dtype='bfloat16', accumulative_counts=2)
    before = model.layer.weight.detach().clone()
    wrapper.initialize_count_status(model, 0, 2)
    model.train_step(dict(inputs=torch.ones(1, 4)), wrapper)
    assert torch.equal(model.layer.weight, before)
    model.train_step(dict(inputs=torch.ones(1, 4)), wrapper)
    assert not torch.equal(model.layer.weight, before)
    build(dtype='bfloat16')[1].load_state_dict(wrapper.state_dict())


@cpu_only
def test_scaler_of_a_gpu_resumes_a_run_of_the_cpu():
    saved = build(dtype='bfloat16')[1].state_dict()
    resumed = build(dtype='bfloat16')[1]
    resumed.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0)  # one that is enabled, as on a GPU
    resumed.load_state_dict(saved)
    assert resumed.loss_scaler.get_scale() == 8.0
    other = build(dtype='bfloat16')[1]
    other.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0)
    other.load_state_dict(resumed.state_dict())
    assert other.loss_scaler.get_scale() == 8.0


@cpu_only
@pytest.mark.parametrize('dtype', ['float16', torch.float16, 'float64'])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=r'needs a GPU.*bfloat16.*OptimWrapper'):
        build(dtype=dtype)


@cpu_only
def test_wrapper_drops_device_ids(monkeypatch):
    received = {}
    monkeypatch.setattr(
        nn.parallel.DistributedDataParallel, '__init__', lambda self, module, **kwargs: received.update(kwargs)
    )
    MMDistributedDataParallel(Model(), device_ids=[0], broadcast_buffers=False)
    assert received == dict(broadcast_buffers=False)


@pytest.fixture
def accelerated(monkeypatch):
    monkeypatch.setattr('mmengine.device.get_device', lambda: 'cuda')


def test_nothing_changes_with_an_accelerator(accelerated, monkeypatch):
    received = {}
    monkeypatch.setattr(
        nn.parallel.DistributedDataParallel, '__init__', lambda self, module, **kwargs: received.update(kwargs)
    )
    MMDistributedDataParallel(Model(), device_ids=[0])
    assert received == dict(device_ids=[0])
    if not torch.cuda.is_available():
        with pytest.raises(AssertionError, match='gpu'):
            build(dtype='bfloat16')
