"""Weights are found in whatever is wrapped around them, and nothing else comes along."""

from argparse import Namespace

import pytest
import torch

from sw_mm.checkpoint.container import read_weights
from sw_mm.compat.torch_load import UntrustedCheckpointError

from .conftest import assert_equal, build, official, prefixed, randomise


@pytest.fixture(scope='module')
def weights():
    return official(randomise(build('slak')))


@pytest.fixture(scope='module')
def other(weights):
    """Weights of the same net that differ everywhere."""
    return {name: tensor + 1 for name, tensor in weights.items()}


def backbone(weights):
    return {name: tensor for name, tensor in weights.items() if not name.startswith('head.')}


def head(weights):
    return {f'head.fc.{name}': weights[f'head.{name}'] for name in ('weight', 'bias')}


def openmmlab(weights):
    return {**prefixed('backbone.', backbone(weights)), **head(weights)}


CONTAINERS = {
    'bare': lambda weights: weights,
    'training script': lambda weights: dict(
        model=weights, optimizer={'state': {}}, epoch='best', scaler={}, args=Namespace(model='tiny', lr=4e-3)
    ),
    'mmengine': lambda weights: dict(meta=dict(epoch=3), state_dict=openmmlab(weights), message_hub={}),
    'data parallel': lambda weights: dict(model=prefixed('module.', weights)),
    'data parallel classifier': lambda weights: dict(state_dict=prefixed('module.', openmmlab(weights))),
    'head among the backbone': lambda weights: dict(state_dict=prefixed('backbone.', weights)),
    'one in the other': lambda weights: dict(state_dict=dict(model=weights)),
    'averaged model': lambda weights: {**prefixed('module.', weights), 'n_averaged': torch.tensor(7)},
}


@pytest.mark.parametrize('wrap', CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_backbone_and_head(weights, save, wrap):
    found = read_weights(save(wrap(weights)))
    assert_equal(found.backbone, backbone(weights))
    assert_equal(found.rest, head(weights))


def test_a_backbone_alone_has_no_rest(weights, save):
    assert read_weights(save(prefixed('backbone.', backbone(weights)))).rest == {}


def test_the_other_parts_of_a_detector_keep_their_names(weights, save):
    rest = {'neck.lateral_convs.0.conv.weight': torch.ones(2), 'roi_head.bbox_head.0.fc_cls.bias': torch.ones(3)}
    found = read_weights(save(dict(state_dict={**prefixed('backbone.', backbone(weights)), **rest})))
    assert_equal(found.rest, rest)


@pytest.mark.parametrize('key', ['model_ema', 'state_dict_ema'])
def test_averaged_weights_of_training_scripts_are_taken_on_demand(weights, other, save, key):
    path = save({'model': weights, key: other})
    assert_equal(read_weights(path).backbone, backbone(weights))
    assert_equal(read_weights(path, ema=True).backbone, backbone(other))


def test_a_file_of_averaged_weights_only_says_so(weights, save):
    path = save(dict(model_ema=weights))
    assert_equal(read_weights(path, ema=True).backbone, backbone(weights))
    with pytest.raises(ValueError, match='it holds averaged weights, which ema=True takes'):
        read_weights(path)


@pytest.mark.parametrize('ema', [False, True])
def test_mmengine_keeps_the_average_where_the_model_is(weights, ema, save, tmp_path):
    """What the hook itself writes, so that the test follows it."""
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    model = torch.nn.ModuleDict(dict(backbone=build('slak')))
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model)
    for parameter in model.parameters():
        parameter.data.add_(1)
    average = {name: tensor.clone() for name, tensor in hook.ema_model.module['backbone'].state_dict().items()}
    checkpoint = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(None, checkpoint)
    assert 'ema_state_dict' in checkpoint
    assert_equal(read_weights(save(checkpoint), ema=ema).backbone, average)


@pytest.mark.parametrize('ema', [False, True])
def test_openmmlab_before_mmengine_too(weights, other, ema, save):
    trained = {f'ema_{name.replace(".", "_")}': tensor for name, tensor in openmmlab(other).items()}
    found = read_weights(save(dict(state_dict={**openmmlab(weights), **trained})), ema=ema)
    assert_equal(found.backbone, backbone(weights))
    assert_equal(found.rest, head(weights))


@pytest.mark.parametrize('content', [lambda weights: weights, lambda weights: dict(state_dict=openmmlab(weights))])
def test_averaged_weights_that_are_not_there_are_refused(weights, save, content):
    with pytest.raises(ValueError, match=r'official\.pth.* holds no averaged weights; set ema=False'):
        read_weights(save(content(weights)), ema=True)


def test_names_of_classes_are_kept(weights, save):
    meta = dict(CLASSES=('a', 'b'), PALETTE=[[1, 2, 3]], epoch=3)
    assert read_weights(save(dict(state_dict=weights, meta=meta))).meta == dict(CLASSES=('a', 'b'), PALETTE=[[1, 2, 3]])


def test_mmpretrains_own_conversion_of_replknet_gets_its_final_norm_back(save):
    model = randomise(build('replknet'))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved = {
        name.replace('norm.', 'stages.3.norm.') if name[:5] == 'norm.' else name: weights[name] for name in weights
    }
    assert moved.keys() != weights.keys()
    assert_equal(read_weights(save(dict(state_dict=prefixed('backbone.', moved)))).backbone, weights)


def test_output_norms_of_replknet_stay_where_they_are(save):
    model = build('replknet', out_indices=(0, 1, 2, 3), norm_intermediate_features=True)
    assert_equal(read_weights(save(model.state_dict())).backbone, dict(model.state_dict()))


@pytest.mark.parametrize('content', [[1, 2], {}, dict(model={}), dict(epoch=3), dict(state_dict=[torch.ones(1)])])
def test_a_file_without_weights_is_refused(save, content):
    with pytest.raises(ValueError, match='holds no weights'):
        read_weights(save(content))


@pytest.mark.parametrize('keep', [0, 10, 2000, -100])
def test_a_truncated_file_is_refused(weights, save, keep):
    path = save(weights)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r'official\.pth'):
        read_weights(path)


def test_a_flipped_bit_in_a_tensor_is_noticed(weights, save):
    path = save(weights)
    content = bytearray(path.read_bytes())
    place = content.index(weights['stages.0.0.pwconv1.weight'].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'official\.pth.* is damaged: .*data/\d+ in it does not have its checksum'):
        read_weights(path)


class Evil:
    def __reduce__(self):
        return open, ('touched', 'w')


def test_code_in_a_file_is_refused_with_a_reason(weights, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UntrustedCheckpointError, match=r'holds .*open, which .* could run code'):
        read_weights(save(dict(model=weights, args=Evil())))
    assert not (tmp_path / 'touched').exists()


def test_the_format_of_old_torch_is_read(weights, tmp_path):
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert_equal(read_weights(tmp_path / 'old.pth').backbone, backbone(weights))
