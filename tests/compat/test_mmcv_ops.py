"""mmcv's operators without a compiled mmcv, against closed forms, literal loops and finite differences."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

import sw_mm.compat  # noqa: F401  # before mmcv.ops

mmcv_ops = pytest.importorskip('mmcv.ops')
import mmcv._ext  # noqa: E402
from mmcv.ops.multi_scale_deform_attn import (  # noqa: E402
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

stand_in = pytest.mark.skipif(not mmcv._ext.__file__.endswith('.py'), reason='this mmcv is compiled')


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def random_boxes(rng, count, size=20.0, dtype=torch.float32):
    corner = torch.rand(count, 2, generator=rng, dtype=dtype) * size
    return torch.cat([corner, corner + torch.rand(count, 2, generator=rng, dtype=dtype) * size / 2], dim=1)


def iou(a, b, offset):
    """Overlap of two boxes; none between empty ones."""
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + offset) for i in (0, 1))
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


@stand_in
def test_module_is_a_proper_one():
    assert mmcv._ext.__spec__.name == 'mmcv._ext'
    assert mmcv_ops.get_compiler_version().startswith('not compiled')
    assert not hasattr(mmcv._ext, '__path__')


@stand_in
def test_other_operators_say_what_to_do():
    with pytest.raises(NotImplementedError, match=r'`border_align_forward`.*Install a compiled mmcv'):
        mmcv_ops.border_align(torch.zeros(1, 4, 3, 3), torch.zeros(1, 9, 4), 2)
    with pytest.raises(NotImplementedError, match="pool_mode='max'"):
        mmcv_ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 0, 'max', True)
    x, offset, mask = (torch.zeros(1, channels, side, side) for channels, side in ((2, 4), (18, 8), (9, 8)))
    with pytest.raises(NotImplementedError, match='offsets for another size'):
        mmcv_ops.modulated_deform_conv2d(x, offset, mask, torch.zeros(2, 2, 3, 3), None, 1, 1)


def test_compiled_module_is_preferred(tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / '_ext.py').write_text('compiled = True')
    code = 'import sw_mm.compat, mmcv._ext; assert mmcv._ext.compiled'
    search = os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])
    subprocess.run([sys.executable, '-c', code], check=True, env={**os.environ, 'PYTHONPATH': search})


def literal_nms(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if not any(iou(boxes[i], boxes[j], offset) > threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nms(rng, offset, dtype):
    boxes, scores = random_boxes(rng, 60, dtype=dtype), torch.rand(60, generator=rng, dtype=dtype)
    for threshold in (0.1, 0.3, 0.7):
        dets, kept = mmcv_ops.nms(boxes, scores, threshold, offset=offset)
        assert kept.tolist() == literal_nms(boxes.tolist(), scores.tolist(), threshold, offset)
        assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], dim=1))


def test_nms_offset_decides(rng):
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])  # they touch; as inclusive pixels they share two of six
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_nms_at_the_threshold(dtype):
    """An overlap equal to the threshold suppresses nothing, whatever 0.4 is in the dtype of the boxes."""
    boxes = torch.tensor([[0, 0, 1, 5], [0, 0, 1, 2]], dtype=dtype)
    scores = torch.tensor([0.9, 0.8], dtype=dtype)
    assert mmcv_ops.nms(boxes, scores, 0.4)[1].tolist() == [0, 1]
    assert mmcv_ops.nms(boxes, scores, 0.399)[1].tolist() == [0]


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_of_odd_boxes(offset):
    boxes = torch.tensor([[2.0, 2, 2, 2], [2, 2, 2, 2], [5, 5, 3, 3], [0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 1, 3]])
    scores = torch.tensor([0.5, 0.5, 0.9, 0.7, 0.7, 0.1])
    kept = mmcv_ops.nms(boxes, scores, 0.5, offset=offset)[1]
    assert kept.tolist() == literal_nms(boxes.tolist(), scores.tolist(), 0.5, offset)


@pytest.mark.parametrize('op', [mmcv_ops.nms, mmcv_ops.soft_nms])
def test_nms_of_nothing(op):
    dets, kept = op(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.long


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_nms_in_half_precision(rng, dtype):
    boxes, scores = random_boxes(rng, 20).to(dtype), torch.rand(20, generator=rng).to(dtype)
    kept = mmcv_ops.nms(boxes, scores, 0.3)[1]
    assert kept.tolist() == literal_nms(boxes.tolist(), scores.tolist(), 0.3, 0)


def test_batched_nms_keeps_classes_apart(rng):
    boxes, scores = random_boxes(rng, 40), torch.rand(40, generator=rng)
    labels = torch.randint(3, (40,), generator=rng)
    kept = mmcv_ops.batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.3))[1]
    expected = []
    for label in range(3):
        index = (labels == label).nonzero()[:, 0]
        expected += index[literal_nms(boxes[index].tolist(), scores[index].tolist(), 0.3, 0)].tolist()
    assert kept.tolist() == sorted(expected, key=lambda i: -scores[i])


def literal_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    """Return rows (index, score) in the order in which the sequential algorithm leaves them."""
    rows = [[i, score] for i, score in enumerate(scores)]
    i = 0
    while i < len(rows):
        best = max(range(i, len(rows)), key=lambda j: (rows[j][1], -j))
        rows[i], rows[best] = rows[best], rows[i]
        j = i + 1
        while j < len(rows):
            overlap = iou(boxes[rows[i][0]], boxes[rows[j][0]], offset)
            if method == 'gaussian':
                rows[j][1] *= np.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                rows[j][1] *= 1 - overlap if method == 'linear' else 0
            if rows[j][1] < min_score:
                rows[j] = rows[-1]
                rows.pop()
            else:
                j += 1
        i += 1
    return rows


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms(rng, method, offset):
    boxes = random_boxes(rng, 50, dtype=torch.float64)
    boxes[:3] = boxes[3]  # the same box
    boxes[4:7] = 5.0  # empty boxes at one place
    scores = (torch.rand(50, generator=rng, dtype=torch.float64) * 8).ceil() / 8  # many ties
    dets, kept = mmcv_ops.soft_nms(boxes, scores, 0.3, sigma=0.5, min_score=0.1, method=method, offset=offset)
    rows = literal_soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.1, method, offset)
    assert kept.tolist() == [index for index, _ in rows]
    assert 0 < len(kept) < 50
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in rows], dtype=torch.float64))
    assert torch.equal(dets[:, :4], boxes[kept])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_of_a_slope(aligned, sampling_ratio):
    """Bilinear sampling is exact on an inclined plane: each bin holds the plane's height at the bin's centre."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing='ij')
    features = torch.stack([x, y, 2 * x - 3 * y + 1])[None].double()
    rois = torch.tensor([[0, 4.0, 6.0, 20.0, 26.0], [0, 5.0, 5.0, 12.5, 9.0]], dtype=torch.float64)
    output = mmcv_ops.roi_align(features, rois, (2, 4), 0.5, sampling_ratio, 'avg', aligned)
    assert output.shape == (2, 3, 2, 4)
    start = rois[:, 1:3] * 0.5 - (0.5 if aligned else 0)
    side = (rois[:, 3:] - rois[:, 1:3]) * 0.5
    centre_x = start[:, :1] + side[:, :1] * (torch.arange(4) + 0.5) / 4
    centre_y = start[:, 1:] + side[:, 1:] * (torch.arange(2) + 0.5) / 2
    for roi, row, column in product(range(2), range(2), range(4)):
        x, y = centre_x[roi, column], centre_y[roi, row]
        expected = torch.stack([x, y, 2 * x - 3 * y + 1])
        torch.testing.assert_close(output[roi, :, row, column], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_gradient(rng, aligned, sampling_ratio):
    features = torch.rand(2, 2, 7, 6, generator=rng, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(rng, 4, size=10.0, dtype=torch.float64)
    boxes[2] = torch.tensor([3.0, 3.0, 3.0, 3.0])  # no area
    boxes[3] = torch.tensor([50.0, 50.0, 60.0, 60.0])  # off the map
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [0]], dtype=torch.float64), boxes], dim=1)
    assert gradcheck(lambda f: mmcv_ops.roi_align(f, rois, (2, 3), 0.5, sampling_ratio, 'avg', aligned), features)


def test_roi_align_of_no_rois(rng):
    features = torch.rand(1, 3, 5, 5, generator=rng, requires_grad=True)
    output = mmcv_ops.RoIAlign(2, 0.25)(features, torch.zeros(0, 5))
    assert output.shape == (0, 3, 2, 2)
    output.sum().backward()
    assert features.grad.abs().sum() == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_roi_align_in_half_precision(rng, dtype):
    features = torch.rand(1, 3, 8, 8, generator=rng).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 1, 1, 6, 7.0]]).to(dtype)
    output = mmcv_ops.roi_align(features, rois, 2, 1.0, 2, 'avg', True)
    assert output.dtype == dtype
    output.float().sum().backward()
    wide = features.detach().float().requires_grad_()
    expected = mmcv_ops.roi_align(wide, rois.float(), 2, 1.0, 2, 'avg', True)
    expected.sum().backward()
    assert torch.equal(output, expected.to(dtype))
    assert torch.equal(features.grad, wide.grad.to(dtype))


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_focal_loss(rng, gamma):
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 3, 3, 0])  # 3 is the background
    truth = F.one_hot(target, 4)[:, :3]
    p_true = torch.where(truth == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(truth == 1, 0.25, 0.75)
    expected = -alpha * (1 - p_true) ** gamma * p_true.log()
    torch.testing.assert_close(mmcv_ops.sigmoid_focal_loss(logits, target, gamma, 0.25, None, 'none'), expected)
    torch.testing.assert_close(mmcv_ops.sigmoid_focal_loss(logits, target, gamma, 0.25, None, 'sum'), expected.sum())
    logits.requires_grad_()
    assert gradcheck(lambda x: mmcv_ops.sigmoid_focal_loss(x, target, gamma, 0.25, None, 'none'), logits)


def test_focal_loss_by_class_weight(rng):
    logits = torch.randn(4, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    target, weight = torch.tensor([0, 1, 2, 0]), torch.tensor([0.5, 3.0], dtype=torch.float64)
    plain = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    weighted = mmcv_ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    of_row = torch.tensor([[0.5], [3.0], [1.0], [0.5]], dtype=torch.float64)  # 2 is the background
    torch.testing.assert_close(weighted, plain * of_row)
    assert gradcheck(lambda x: mmcv_ops.sigmoid_focal_loss(x, target, 2.0, 0.25, weight, 'mean'), logits)


def test_focal_loss_at_the_extremes():
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    empty = torch.zeros(0, 2, requires_grad=True)
    mmcv_ops.sigmoid_focal_loss(empty, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum').backward()
    assert empty.grad.shape == (0, 2)


GEOMETRIES = [{}, dict(stride=2, padding=1), dict(padding=(2, 1), dilation=(2, 1), groups=2, deform_groups=2)]


def deform_inputs(rng, stride=1, padding=0, dilation=1, groups=1, deform_groups=1, kernel=(3, 2)):
    x = torch.randn(2, 4, 6, 5, generator=rng, dtype=torch.float64)
    weight = torch.randn(6, 4 // groups, *kernel, generator=rng, dtype=torch.float64)
    size = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    points = kernel[0] * kernel[1] * deform_groups
    # Bilinear sampling has kinks on the grid; finite differences must stay off it.
    offset = torch.rand(2, 2 * points, *size, generator=rng, dtype=torch.float64) * 0.8 + 0.1
    mask = torch.rand(2, points, *size, generator=rng, dtype=torch.float64)
    return x, weight, offset, mask


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv_without_deformation(rng, geometry):
    x, weight, offset, mask = deform_inputs(rng, **geometry)
    bias = torch.randn(6, generator=rng, dtype=torch.float64)
    geometry = dict(dict(stride=1, padding=0, dilation=1, groups=1, deform_groups=1), **geometry)
    plain = F.conv2d(x, weight, None, *list(geometry.values())[:-1])
    torch.testing.assert_close(mmcv_ops.deform_conv2d(x, offset * 0, weight, *geometry.values()), plain)
    half = mmcv_ops.modulated_deform_conv2d(x, offset * 0, mask * 0 + 0.5, weight, bias, *geometry.values())
    torch.testing.assert_close(half, plain / 2 + bias[:, None, None])


def test_deform_conv_by_a_whole_pixel(rng):
    x, weight, offset, _ = deform_inputs(rng)
    offset = torch.zeros_like(offset)
    offset[:, 0::2] = 1  # one row down
    shifted = F.pad(x, (0, 0, 0, 1))[:, :, 1:]
    torch.testing.assert_close(mmcv_ops.deform_conv2d(x, offset, weight), F.conv2d(shifted, weight))


@pytest.mark.parametrize('geometry', GEOMETRIES[1:])
def test_deform_conv_gradients(rng, geometry):
    x, weight, offset, mask = (x.requires_grad_() for x in deform_inputs(rng, **geometry))
    bias = torch.randn(6, generator=rng, dtype=torch.float64, requires_grad=True)
    geometry = dict(dict(stride=1, padding=0, dilation=1, groups=1, deform_groups=1), **geometry)
    assert gradcheck(lambda *a: mmcv_ops.deform_conv2d(*a, *geometry.values()), (x, offset, weight), fast_mode=True)
    assert gradcheck(
        lambda *a: mmcv_ops.modulated_deform_conv2d(*a, *geometry.values()),
        (x, offset, mask, weight, bias),
        fast_mode=True,
    )


def test_deform_conv_layers_without_bias(rng):
    x, weight, offset, mask = deform_inputs(rng)
    x.requires_grad_()
    output = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, None)
    output.sum().backward()
    assert x.grad.abs().sum() > 0


def test_deformable_attention(rng):
    """The operator that mmcv takes on GPUs equals its own pure form, gradients included."""
    shapes = torch.tensor([[4, 3], [2, 2]])
    start = torch.tensor([0, 12])
    value = torch.randn(2, 16, 2, 4, generator=rng, dtype=torch.float64)
    places = torch.rand(2, 5, 2, 2, 3, 2, generator=rng, dtype=torch.float64)
    weights = torch.rand(2, 5, 2, 2, 3, generator=rng, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (value, places, weights)]
    output = MultiScaleDeformableAttnFunction.apply(value, shapes, start, places, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    torch.testing.assert_close(output, expected)
    grad = torch.randn(output.shape, generator=rng, dtype=torch.float64)
    for mine, theirs in zip(
        torch.autograd.grad(output, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize('psa_type', [0, 1])
@pytest.mark.parametrize('mask_size', [(3, 5), (7, 9)])
def test_psa_mask(rng, psa_type, mask_size):
    height, width = 4, 5
    x = torch.randn(2, mask_size[0] * mask_size[1], height, width, generator=rng, dtype=torch.float64)
    expected = torch.zeros(2, height * width, height, width, dtype=torch.float64)
    for y, x_, v, u in product(range(height), range(width), range(height), range(width)):
        row, column = v - y + (mask_size[0] - 1) // 2, u - x_ + (mask_size[1] - 1) // 2
        if 0 <= row < mask_size[0] and 0 <= column < mask_size[1]:
            channel = x[:, row * mask_size[1] + column, y, x_]
            if psa_type == 0:
                expected[:, v * width + u, y, x_] = channel
            else:
                expected[:, y * width + x_, v, u] = channel
    from mmcv.ops.psa_mask import psa_mask

    assert torch.equal(psa_mask(x, psa_type, mask_size), expected)
    assert gradcheck(lambda x: psa_mask(x, psa_type, mask_size), x.requires_grad_(), fast_mode=True)


def test_cascade_mask_rcnn_trains_and_predicts():
    mmdet = pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    register_all_modules(init_default_scope=True)
    config = Path(mmdet.__file__).parent / '.mim/configs/cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
    config = Config.fromfile(config).model
    config.backbone = dict(type='ResNet', depth=18, base_channels=16, norm_eval=False)
    config.neck.update(in_channels=[16, 32, 64, 128], out_channels=16)
    config.rpn_head.update(in_channels=16, feat_channels=16)
    config.roi_head.bbox_roi_extractor.out_channels = config.roi_head.mask_roi_extractor.out_channels = 16
    for head in config.roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32, num_classes=2)
    config.roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=2)
    for stage in ('rpn', 'rcnn'):
        config.test_cfg[stage].nms.type = 'soft_nms' if stage == 'rcnn' else 'nms'
    config.test_cfg.rcnn.score_thr = 0.0
    torch.manual_seed(0)
    model = MODELS.build(config)

    sample = DetDataSample(
        metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 40, 50], [30, 10, 60, 30]]),
        labels=torch.tensor([0, 1]),
        masks=BitmapMasks(np.ones((2, 64, 64), dtype=np.uint8), 64, 64),
    )
    image = torch.rand(1, 3, 64, 64)
    losses = model.loss(image, [sample])
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert {'loss_rpn_cls', 's0.loss_cls', 's2.loss_bbox', 's2.loss_mask'} <= set(losses)
    for part in (model.backbone.layer4, model.neck, model.rpn_head, model.roi_head):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())

    with torch.no_grad():
        found = model.eval().predict(image, [sample])[0].pred_instances
    assert 0 < len(found) <= 100
    assert found.masks.shape == (len(found), 64, 64)
    assert found.scores.isfinite().all()
