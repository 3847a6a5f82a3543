"""MobileNetV2 with large kernels against its sizes, its state dicts, and the MobileNetV2 of two libraries."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from torch import nn

import sw_mm.registry  # noqa: F401 (before the libraries, which need sw_mm.compat without mmcv's operators)
from sw_mm.analysis import complexity
from sw_mm.backbones import LargeKernelMobileNetV2
from sw_mm.layers import DepthwiseConv2d
from sw_mm.layers.reparam import embed_kernel

ALL = dict(out_indices=(0, 1, 2, 3))
BRANCHED = dict(small_kernel=3)


def build(**kwargs) -> LargeKernelMobileNetV2:
    """A net with 8 to 32 channels in its stages."""
    return LargeKernelMobileNetV2(**{'width_factor': 0.1, 'kernel_size': 7, **kwargs})


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


def on_meta(**kwargs) -> LargeKernelMobileNetV2:
    with torch.device('meta'):
        return LargeKernelMobileNetV2(**kwargs)


def theirs_of(library: str, **kwargs) -> nn.Module:
    """MobileNetV2 of another library."""
    return import_module(f'{library}.models').MobileNetV2(**kwargs)


def in_eval(net: nn.Module) -> nn.Module:
    """Double precision and eval mode; the libraries' ``eval`` returns nothing."""
    net.double().eval()
    return net


def depthwise_layers(net: nn.Module) -> list[DepthwiseConv2d]:
    """The depthwise convolutions, without the small ones beside others."""
    found = {name: m for name, m in net.named_modules() if isinstance(m, DepthwiseConv2d)}
    return [m for name, m in found.items() if 'small_conv' not in name]


# Without the head, as sizes are told below: parameters and MACs of 1280 x 1000 and 1000 biases.
HEAD_PARAMS, HEAD_MACS = 1_281_000, 1_280_000


@pytest.mark.parametrize(
    ('kwargs', 'params', 'macs'),
    [
        (dict(kernel_size=3), 3_504_872, '300.8'),
        (dict(kernel_size=3, small_kernel=3), 3_504_872, '300.8'),
        (dict(kernel_size=9), 4_018_664, '466.5'),
        ({}, 4_646_632, '669.1'),
        (dict(large_kernels='last_stage'), 3_965_672, '323.4'),
        (dict(large_kernels='last_block'), 3_658_472, '308.3'),
        (dict(shortcut=False), 4_646_632, '669.1'),
        (dict(kernel_size=3, dw_dilation=6), 3_504_872, '300.8'),
        (dict(kernel_size=3, width_factor=0.75), 2_636_424, '209.1'),
        (dict(kernel_size=13, width_factor=0.75, large_kernels='last_block'), 2_751_624, '214.7'),
        # 3x3 kernels and 2 numbers of batch norm for each of the 7136 depthwise channels; two numbers of each go again
        (dict(small_kernel=3), 4_646_632 + 7136 * 11, '689.8'),
        (dict(small_kernel=3, deploy='official'), 4_646_632 - 7136, '669.1'),
    ],
)
def test_nets_have_their_size(kwargs, params, macs):
    cost = complexity(on_meta(**kwargs))
    assert (cost.params + HEAD_PARAMS, f'{(cost.macs + HEAD_MACS) / 1e6:.1f}') == (params, macs)


@pytest.mark.parametrize(('large_kernels', 'count'), [('all', 17), ('last_stage', 3), ('last_block', 1)])
@pytest.mark.parametrize('output_stride', [32, 8])
def test_large_kernels_are_the_last_so_many(large_kernels, count, output_stride):
    net = on_meta(large_kernels=large_kernels, dw_dilation=3, output_stride=output_stride, **BRANCHED)
    layers = depthwise_layers(net)
    assert [m.kernel_size[0] for m in layers] == [3] * (17 - count) + [13] * count
    dilations = [m.dilation[0] for m in layers]
    in_turn = {32: (1,) * 17, 8: (1,) * 6 + (2, 1, 1, 1, 2, 1, 1, 4, 1, 1, 4)}[output_stride]
    assert dilations == [d * (3 if i >= 17 - count else 1) for i, d in enumerate(in_turn)]
    assert sum(isinstance(m, DepthwiseConv2d) for m in net.modules()) == 17 + count


def entries(kwargs: dict, branched: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict at width 1, with so many large kernels that have a branch."""
    shapes, deploy = {}, kwargs.get('deploy', False)

    def layer(name: str, *weight: int, norm: bool = deploy is not True) -> None:
        shapes[f'{name}.conv.weight'] = weight
        if norm:
            shapes.update({f'{name}.bn.{key}': weight[:1] for key in ('weight', 'bias', 'running_mean', 'running_var')})
            shapes[f'{name}.bn.num_batches_tracked'] = ()
        else:
            shapes[f'{name}.conv.bias'] = weight[:1]

    layer('conv1', 32, 3, 3, 3)
    width, seen = 32, 0
    for number, (channels, depth) in enumerate(
        [(16, 1), (24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)], start=1
    ):
        for index in range(depth):
            at, hidden, i = f'layer{number}.{index}.conv', width if number == 1 else 6 * width, int(number > 1)
            if i:
                layer(f'{at}.0', hidden, width, 1, 1)
            if seen < 17 - branched:
                layer(f'{at}.{i}', hidden, 1, 3, 3)
            elif deploy:
                shapes.update({f'{at}.{i}.lkb_reparam.weight': (hidden, 1, 13, 13)})
                shapes.update({f'{at}.{i}.lkb_reparam.bias': (hidden,)})
            else:
                layer(f'{at}.{i}.lkb_origin', hidden, 1, 13, 13)
                layer(f'{at}.{i}.small_conv', hidden, 1, 3, 3)
            layer(f'{at}.{i + 1}', channels, hidden, 1, 1)
            width, seen = channels, seen + 1
    if kwargs.get('gap_before_final_norm', True):
        layer('conv2', 1280, 320, 1, 1)
    return shapes


@pytest.mark.parametrize(
    ('kwargs', 'branched', 'total'),
    [
        (dict(kernel_size=3), 0, 312),
        (dict(kernel_size=3, small_kernel=3, deploy=True), 0, 104),
        (dict(kernel_size=3, gap_before_final_norm=False), 0, 306),
        (dict(small_kernel=3), 17, 414),
        (dict(small_kernel=3, large_kernels='last_stage'), 3, 330),
        (dict(small_kernel=3, deploy='official'), 17, 244),
        (dict(small_kernel=3, deploy=True), 17, 104),
    ],
)
def test_state_dict_has_the_names_of_the_libraries_and_of_the_branches(kwargs, branched, total):
    state = on_meta(**kwargs).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == entries(kwargs, branched)
    assert len(state) == total


@pytest.mark.parametrize('width_factor', [0.1, 0.35, 0.75, 1.0, 1.1, 1.4])
def test_all_widths_are_those_of_mmpretrain(width_factor):
    with torch.device('meta'):
        theirs = theirs_of('mmpretrain', widen_factor=width_factor)
    shapes = [(key, tensor.shape) for key, tensor in theirs.state_dict().items()]
    ours = on_meta(width_factor=width_factor, kernel_size=3)
    assert [(key, tensor.shape) for key, tensor in ours.state_dict().items()] == shapes


@pytest.mark.parametrize('shortcut', [True, False])
def test_3x3_is_mobilenet_v2_of_mmpretrain(perturb, shortcut):
    theirs = in_eval(perturb(theirs_of('mmpretrain')))
    for block in theirs.modules():
        if hasattr(block, 'use_res_connect'):
            block.use_res_connect &= shortcut
    ours = in_eval(LargeKernelMobileNetV2(kernel_size=3, shortcut=shortcut))
    ours.load_state_dict(theirs.state_dict())
    x = batch(2, 3, 75, 96, dtype=torch.float64)
    ((out,), (expected,)) = ours(x), theirs(x)
    assert out.shape == (2, 1280)
    assert out.std() > 0.1
    torch.testing.assert_close(out, expected.mean((2, 3)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ('output_stride', 'strides', 'dilations'),
    [
        (32, (1, 2, 2, 2, 1, 2, 1), (1, 1, 1, 1, 1, 1, 1)),
        (16, (1, 2, 2, 2, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)),
        (8, (1, 2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4, 4)),
    ],
)
@pytest.mark.parametrize('width_factor', [1.0, 0.1])  # at 0.1 a layer that keeps its resolution gains a shortcut
def test_dense_3x3_is_mobilenet_v2_of_mmseg(perturb, output_stride, strides, dilations, width_factor):
    theirs = in_eval(perturb(theirs_of('mmseg', widen_factor=width_factor, strides=strides, dilations=dilations)))
    ours = in_eval(build(width_factor=width_factor, kernel_size=3, output_stride=output_stride, **ALL))
    ours.load_state_dict(theirs.state_dict())
    x = batch(2, 3, 75, 96, dtype=torch.float64)
    maps = ours(x)
    assert [m.shape[1] for m in maps] == ([24, 32, 96, 320] if width_factor == 1 else [8, 8, 16, 32])
    assert maps[3].shape[3] == 96 // output_stride
    for out, expected in zip(maps, theirs(x), strict=True):
        assert out.std() > 0.1
        torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('output_stride', [32, 8])
def test_dilated_kernels_are_dense_ones_with_holes(perturb, output_stride):
    common = dict(output_stride=output_stride, **ALL)
    dilated = in_eval(perturb(build(kernel_size=3, dw_dilation=3, **common)))
    dense = in_eval(build(kernel_size=7, **common))
    state = dilated.state_dict()
    for key, tensor in dense.state_dict().items():
        if tensor.shape != state[key].shape:
            state[key] = embed_kernel(state[key], (7, 7), dilation=3)
    dense.load_state_dict(state)
    x = batch(dtype=torch.float64)
    for ours, other in zip(dilated(x), dense(x), strict=True):
        assert ours.std() > 0.01
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('large_kernels', ['all', 'last_block'])
def test_branches_act_as_one_kernel_before_the_activation(perturb, large_kernels):
    net = in_eval(perturb(build(large_kernels=large_kernels, **BRANCHED, **ALL)))
    plain = in_eval(build(large_kernels=large_kernels, deploy=True, **ALL))
    x = batch(dtype=torch.float64)
    expected = net(x)
    net.switch_to_deploy()
    plain.load_state_dict({key.replace('lkb_reparam', 'conv'): tensor for key, tensor in net.state_dict().items()})
    for ours, other in zip(plain(x), expected, strict=True):
        assert ours.std() > 0.01
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


def test_weights_start_as_in_mmpretrain():
    """The standard deviation is that of fan-out initialisation with groups ignored, for each kind of convolution."""
    net, theirs = LargeKernelMobileNetV2(kernel_size=3), theirs_of('mmpretrain')
    net.init_weights()
    theirs.init_weights()
    for name in ('conv1.conv', 'layer7.0.conv.0.conv', 'layer7.0.conv.1.conv', 'layer7.0.conv.2.conv', 'conv2.conv'):
        weight, other = (m.get_submodule(name).weight.detach() for m in (net, theirs))
        std = math.sqrt(2 * weight.shape[1] / weight.numel())
        assert [weight.std(), other.std()] == pytest.approx([std, std], rel=0.1)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
    deployed = build(deploy=True)
    assert all((p == 0).all() for name, p in deployed.named_parameters() if name.endswith('bias'))


@pytest.mark.parametrize('small_kernel', [3, None])
@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(width_factor=value), 'width_factor') for value in (-1, 0, 'x', None, float('inf'))),
        *((dict(kernel_size=value), 'kernel_size') for value in (12, 0, 13.0, (13, 13), None, True)),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', (3, 3), 0, True)),
        *((dict(large_kernels=value), 'large_kernels') for value in ('last', None, 3)),
        *((dict(dw_dilation=value), 'dw_dilation') for value in (0, 1.0, (2, 2), None, True)),
        *((dict(output_stride=value), 'output_stride') for value in (4, 64, 8.0, '8', None)),
    ],
)
def test_bad_arguments_are_named(kwargs, name, small_kernel):
    with pytest.raises(ValueError, match=f'^{name} '):
        on_meta(**{'small_kernel': small_kernel, **kwargs})


@pytest.mark.parametrize(
    ('name', 'depth'),
    [
        ('backbone.conv1.bn.weight', 0),
        ('backbone.layer1.0.conv.0.conv.weight', 1),
        ('backbone.layer6.2.conv.1.lkb_origin.bn.bias', 6),
        ('backbone.layer7.0.conv.2.conv.weight', 7),
        ('backbone.conv2.conv.weight', 8),
        ('head.fc.weight', 8),
        ('conv1.weight', 8),
    ],
)
def test_layer_depths(name, depth):
    assert on_meta().get_layer_depth(name, prefix='backbone.') == (depth, 9)


def test_deeplab_of_mmseg_takes_it_by_name():
    """Its own config, with nothing but the backbone's type and arguments exchanged."""
    import mmseg.models
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    configs = Path(mmseg.__file__).parent / '.mim' / 'configs' / 'mobilenet_v2'
    config = Config.fromfile(configs / 'mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py')
    init_default_scope('mmseg')
    model, norm_cfg = config.model, dict(type='BN')
    model.pretrained = None
    model.backbone = dict(
        type='sw_mm.LargeKernelMobileNetV2', kernel_size=9, output_stride=8, out_indices=(0, 1, 2, 3), norm_cfg=norm_cfg
    )
    model.decode_head.norm_cfg = model.auxiliary_head.norm_cfg = norm_cfg
    net = MODELS.build(model)
    assert type(net.backbone) is LargeKernelMobileNetV2
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 64, 64, dtype=torch.long))) for _ in range(2)]
    losses = net.train().loss(batch(), samples)
    (losses['decode.loss_ce'] + losses['aux.loss_ce']).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.eval().encode_decode(batch(), [dict(img_shape=(64, 64))] * 2).shape == (2, 19, 64, 64)
