import copy

import pytest
import torch
from torch import nn

import sw_mm.registry  # noqa: F401  (stands in for the operators of a missing compiled mmcv)
from sw_mm.deploy import switch_to_deploy

BACKBONE = dict(
    type='sw_mm.ShiftWiseNet',
    arch=dict(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32)),
    kernel_size=(13, 9, 7, 5),
    layer_scale_init_value=1.0,
)


class Folding(nn.Module):
    """Record the calls of its method."""

    def __init__(self, *children: nn.Module) -> None:
        super().__init__()
        self.inside = nn.ModuleList(children)
        self.calls = []

    def switch_to_deploy(self, form: str = 'full') -> None:
        self.calls.append(form)


class ForeignFolding(Folding):
    """As other libraries write it."""

    def switch_to_deploy(self) -> None:
        self.calls.append('foreign')


@pytest.mark.parametrize('form', ['full', 'official'])
def test_outermost_modules_are_called_once(form):
    inner, shared, foreign = Folding(), Folding(), ForeignFolding()
    outer = Folding(inner)
    model = nn.ModuleDict(dict(a=nn.Sequential(outer, shared), b=nn.ModuleList([shared, foreign]), c=nn.ReLU()))
    assert switch_to_deploy(model, form) is model
    assert (outer.calls, inner.calls, shared.calls, foreign.calls) == ([form], [], [form], ['foreign'])


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match='form'):
        switch_to_deploy(nn.ReLU(), 'fast')


def perturb(model: nn.Module) -> nn.Module:
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor) * 0.2 - 0.1)
    return model


def classifier() -> nn.Module:
    from mmpretrain.models import ImageClassifier

    return ImageClassifier(
        backbone=BACKBONE,
        neck=None,
        head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
    )


def segmentor() -> nn.Module:
    from mmseg.models import EncoderDecoder

    norm_cfg = dict(type='BN')
    head = dict(type='FCNHead', in_channels=32, in_index=3, channels=8, num_convs=1, num_classes=5, norm_cfg=norm_cfg)
    return EncoderDecoder(
        backbone=dict(BACKBONE, out_indices=(0, 1, 2, 3)),
        decode_head=head,
        train_cfg={},
        test_cfg=dict(mode='whole'),
    )


@pytest.mark.parametrize('build', [classifier, segmentor])
def test_models_of_the_libraries_give_the_same_after_it(build):
    model = perturb(build()).eval()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x, mode='tensor')
    switch_to_deploy(model)
    state = copy.deepcopy(model.state_dict())
    switch_to_deploy(model)
    result = model(x, mode='tensor')
    assert (result - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not any('LoRA' in key for key in state)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
