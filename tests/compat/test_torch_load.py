"""Checkpoints load under torch's guard, and nothing in an untrusted file ever runs."""

import argparse
import os
import subprocess
import sys
import textwrap
import types
import zipfile
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from torch import nn

from sw_mm.compat.torch_load import TRUST_VARIABLE, UntrustedCheckpointError, is_plain_config, safe_load


class Bomb:
    """Create ``path`` when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TinyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(torch.stack(inputs)).square().mean()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'checkpoint.pth'


@pytest.fixture
def mark(tmp_path):
    """A path that exists only if something ran."""
    return tmp_path / 'mark'


def test_types_of_mmengine(path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    stored = {
        'history': history,
        'float64': np.float64(3.5),
        'float32': np.float32(0.5),
        'bool': np.bool_(True),
        'integers': np.arange(6).reshape(2, 3),
        'words': np.array(['wall', 'tree']),
        'bytes': b'\x00\xff',
        'args': argparse.Namespace(model='tiny', lr=4e-3),
        'weight': torch.arange(3.0),
    }
    torch.save(stored, path)
    loaded = safe_load(path)
    assert type(loaded['history']) is HistoryBuffer
    assert loaded['history'].statistics('mean') == 2.0
    assert loaded['history'].data[0].tolist() == [1.0, 3.0]
    assert loaded['args'] == stored['args']
    assert loaded['bytes'] == stored['bytes']
    for key in ('float64', 'float32', 'bool', 'integers', 'words'):
        assert type(loaded[key]) is type(stored[key])
        assert np.array_equal(loaded[key], stored[key])
    assert torch.equal(loaded['weight'], stored['weight'])

    torch.save(loaded, path)  # nothing of ours sticks to what was loaded
    assert b'sw_mm' not in path.read_bytes()
    assert torch.load(path, weights_only=True)['history'].mean() == 2.0


def test_arrays_of_either_numpy_age(path):
    torch.save({'a': np.arange(3), 's': np.float64(2)}, path, _use_new_zipfile_serialization=False)
    here, there = b'numpy._core.multiarray', b'numpy.core.multiarray'
    if here not in path.read_bytes():
        here, there = there, here
    path.write_bytes(path.read_bytes().replace(b'c' + here, b'c' + there))
    loaded = safe_load(path)
    assert loaded['a'].tolist() == [0, 1, 2]
    assert loaded['s'] == 2


@pytest.mark.parametrize('zipped', [True, False])
def test_foreign_pickle_is_refused_and_not_run(path, mark, zipped):
    torch.save({'state_dict': {}, 'extra': Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedCheckpointError, match=r'mkdir.*add_safe_globals.*' + TRUST_VARIABLE) as caught:
        safe_load(path)
    assert str(path) in str(caught.value)
    assert not mark.exists()


def test_all_refused_types_are_named(path):
    torch.save({'a': Bomb('/nowhere'), 'b': np.random.default_rng(0), 'c': argparse.Namespace()}, path)
    with pytest.raises(UntrustedCheckpointError) as caught:
        safe_load(path)
    assert 'posix.mkdir' in str(caught.value)
    assert '__generator_ctor' in str(caught.value)
    assert 'Namespace' not in str(caught.value)


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        ('numpy\nndarray', 'tofile'),
        ('mmengine.logging.history_buffer\nHistoryBuffer', '__init__'),
        ('mmengine.logging.history_buffer\nHistoryBuffer', '_statistics_methods'),
    ],
)
def test_getattr_reaches_nothing_else(path, owner, name):
    """A pickled HistoryBuffer needs ``getattr``; with the real one a pickle could walk to any module."""
    torch.save({}, path, _use_new_zipfile_serialization=False)
    attack = b'\x80\x02' + f'c__builtin__\ngetattr\nc{owner}\nX'.encode()
    attack += len(name).to_bytes(4, 'little') + name.encode() + b'\x86R.'
    whole = path.read_bytes()
    assert whole.count(b'\x80\x02}q\x00.') == 1
    path.write_bytes(whole.replace(b'\x80\x02}q\x00.', attack))
    with pytest.raises(UntrustedCheckpointError, match=r'builtins\.getattr'):
        safe_load(path)


def test_statistics_of_the_class_are_not_replaced(path):
    history = HistoryBuffer([1.0], [1])
    torch.save(history, path)
    before = dict(HistoryBuffer._statistics_methods)
    safe_load(path)
    assert HistoryBuffer._statistics_methods == before
    assert all(callable(method) for method in before.values())


def test_trusted_file_is_read_whole(path, mark, monkeypatch):
    torch.save({'extra': Bomb(mark)}, path)
    monkeypatch.setenv(TRUST_VARIABLE, os.pathsep.join(['/elsewhere.pth', str(path)]))
    safe_load(path)
    assert mark.exists()


def test_trust_is_for_one_file(path, mark, monkeypatch, tmp_path):
    torch.save({'extra': Bomb(mark)}, path)
    for trusted in (str(tmp_path), str(tmp_path / 'other.pth'), ''):
        monkeypatch.setenv(TRUST_VARIABLE, trusted)
        with pytest.raises(UntrustedCheckpointError):
            safe_load(path)
    assert not mark.exists()


def test_unusable_files(path, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing-here'):
        safe_load(tmp_path / 'nothing-here.pth')
    with pytest.raises(FileNotFoundError, match='directory'):
        safe_load(tmp_path)

    torch.save({'weight': torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for content in (b'', b'<html>404</html>', whole[:700], whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='damaged') as caught:
            safe_load(path)
        assert str(path) in str(caught.value)
        assert 'weights_only' not in str(caught.value)
        assert not isinstance(caught.value, UntrustedCheckpointError)

    torch.save({'weight': torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match='damaged'):
        safe_load(path)


@pytest.mark.parametrize('member', ['a.npy', 'folder/readme.txt', 'folder/data.pkl'])
def test_other_archives_are_no_checkpoints(path, member):
    """NumPy's npz files and torch's checkpoints are zip archives, as much else."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(member, 'x')
    with pytest.raises(ValueError, match='is no checkpoint') as caught:
        safe_load(path)
    assert 'report' not in str(caught.value)


def test_npz_is_no_checkpoint(tmp_path):
    np.savez(tmp_path / 'arrays.npz', a=np.zeros(3))
    with pytest.raises(ValueError, match=r'arrays\.npz .*is no checkpoint'):
        safe_load(tmp_path / 'arrays.npz')


def test_a_reason_that_says_nothing_is_left_out(path):
    for content in (b'', b'hello world'):  # torch's errors are ``EOFError()`` and ``KeyError(101)``
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r'fetch or save it again$'):
            safe_load(path)


@pytest.mark.parametrize('device', ['nowhere', 'cuda:x', 'cuda:99'])
def test_errors_about_the_device_are_left_as_they_are(path, device):
    torch.save({'weight': torch.zeros(2)}, path)
    with pytest.raises(RuntimeError):
        safe_load(path, map_location=device)


def test_errors_about_the_memory_are_left_as_they_are(path, monkeypatch):
    torch.save({'weight': torch.zeros(2)}, path)
    for error in (torch.OutOfMemoryError('CUDA out of memory.'), RuntimeError('[enforce fail at alloc_cpu.cpp:127]')):
        monkeypatch.setattr(torch, 'load', mock.Mock(side_effect=error))
        with pytest.raises(RuntimeError) as caught:
            safe_load(path)
        assert caught.value is error


def test_torchscript_is_no_checkpoint(path):
    torch.jit.save(torch.jit.script(nn.ReLU()), path)
    with pytest.raises(ValueError, match='TorchScript'):
        safe_load(path)


@pytest.mark.parametrize('scheme', ['', 'https://'])
def test_loaders_of_mmengine_are_guarded(path, mark, monkeypatch, scheme):
    monkeypatch.setenv('TORCH_HOME', str(path.parent))
    cached = path.parent / 'hub/checkpoints/net.pth' if scheme else path
    cached.parent.mkdir(parents=True, exist_ok=True)
    source = 'https://example.com/a/net.pth?x=1' if scheme else str(path)

    torch.save({'state_dict': {'weight': torch.ones(2)}, 'history': HistoryBuffer([1.0], [1])}, cached)
    loaded = _load_checkpoint(source, map_location='cpu')
    assert loaded['state_dict']['weight'].tolist() == [1, 1]
    assert loaded['history'].mean() == 1

    torch.save({'state_dict': Bomb(mark)}, cached)
    with pytest.raises(UntrustedCheckpointError, match=str(cached)):
        CheckpointLoader.load_checkpoint(source, map_location='cpu')
    assert not mark.exists()


def test_download(path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(path.parent))
    asked = []

    def download(url, target, progress):
        asked.append(url)
        torch.save({'weight': torch.ones(1, 1), 'bias': torch.zeros(1)}, target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    model = nn.Linear(1, 1)
    for _ in range(2):
        load_checkpoint(model, 'https://example.com/net.pth')
    assert asked == ['https://example.com/net.pth']
    assert model.weight.item() == 1


@pytest.mark.parametrize(
    'text',
    [
        '',
        "model = dict(type='ResNet', out_indices=(0, 1), lr=-1e-3, names={'a': [None, True]}, s={1, 2})\nx = 3",
        "custom_imports = dict(imports=['sw_mm.compat', 'mmseg.models'], allow_failed_imports=False)",
        Config(dict(a=dict(b=[1, (2.5, 'three')], c=None), d=-1, keys={'a.b': dict(lr_mult=0.1)})).pretty_text,
        "x = dict({'a.b': 1}, c=2)",
    ],
)
def test_plain_config(text):
    assert is_plain_config(text)


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        "x = __import__('os')",
        "x = dict(a=[open('/x', 'w')])",
        'x = [i for i in (1, 2)]',
        'x = lambda: 0',
        "x = f'{1}'",
        'dict = print\nx = dict(a=1)',
        'def dict(**k): ...',
        "_base_ = './other.py'",
        "custom_imports = dict(imports=['antigravity'])",
        "custom_imports = dict(imports='antigravity')",
        "x = '{{ fileDirname }}'",
        'x.y = 1',
        'x = dict(**{})',
        "x = dict({'a': print()})",
        'x = dict([1])',
        'x = dict({**y})',
        'x =',
        'x = ' + '-' * 100_000 + '1',
        None,
        b'x = 1',
    ],
)
def test_config_that_could_do_something(text):
    assert not is_plain_config(text)


def runner(folder, iters, **options):
    data = [dict(inputs=row) for row in torch.arange(8.0).reshape(4, 2)]
    return Runner(
        TinyModel(),
        work_dir=str(folder),
        train_dataloader=dict(dataset=data, batch_size=2, sampler=dict(type='InfiniteSampler')),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.01)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2, by_epoch=False)),
        experiment_name=f'{folder.name}-{iters}-{len(options)}',
        log_level='ERROR',
        **options,
    )


@pytest.fixture
def trained(tmp_path):
    """A real checkpoint of mmengine, after two iterations."""
    folder = tmp_path / 'run'
    folder.mkdir()
    torch.manual_seed(0)
    runner(folder, iters=2).train()
    return folder / 'iter_2.pth'


def edited(checkpoint, **meta):
    content = safe_load(checkpoint)
    content['meta'].update(meta)
    torch.save(content, checkpoint)


def test_resume(trained, tmp_path):
    assert b'getattr' in trained.read_bytes()  # it holds a HistoryBuffer
    resumed = runner(tmp_path / 'more', iters=4, resume=True, load_from=str(trained))
    resumed.train()
    assert resumed.iter == 4
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) > 2


def test_resume_runs_no_config_text(trained, tmp_path, mark):
    edited(trained, config=f'import os\nos.mkdir({str(mark)!r})\ngpu_ids = [0]')
    with pytest.warns(UserWarning, match='meta/config'):
        runner(tmp_path / 'more', iters=4, resume=True, load_from=str(trained)).train()
    assert not mark.exists()


def test_resume_still_reads_plain_config_text(trained, tmp_path):
    edited(trained, config='gpu_ids = [0, 1, 2]')
    with pytest.raises(RuntimeError, match='Number of GPUs'):
        runner(tmp_path / 'more', iters=4, resume=True, load_from=str(trained)).train()


def test_inferencer_builds_no_model_from_weights(path, mark, monkeypatch):
    text = f"model = dict(type='os.mkdir', path={str(mark)!r})"
    torch.save({'meta': {'cfg': text}, 'state_dict': {}}, path)
    inferencer = types.SimpleNamespace(_load_weights_to_model=None)
    with pytest.raises(UntrustedCheckpointError, match='pass the config file'):
        BaseInferencer._init_model(inferencer, {}, str(path))
    assert not mark.exists()

    monkeypatch.setenv(TRUST_VARIABLE, str(path))
    with pytest.raises(Exception):  # noqa: B017, PT011  # a folder is no model
        BaseInferencer._init_model(inferencer, Config(), str(path))
    assert mark.exists()


def test_without_the_libraries(path):
    torch.save({'weight': torch.ones(2), 'args': argparse.Namespace(lr=0.1), 'best': np.float64(0.5)}, path)
    code = f"""
        import sys
        sys.modules.update(dict.fromkeys(['mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mim']))
        from sw_mm.compat.torch_load import safe_load
        assert safe_load({str(path)!r})['args'].lr == 0.1
    """
    subprocess.run([sys.executable, '-c', textwrap.dedent(code)], check=True)
