"""Backbone swaps: every architecture either trains and predicts with the new backbone, or is refused with the reason.

``python tests/test_swap_table.py`` writes ``docs/backbone_swap.md`` anew.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import get_installed_path

import sw_mm.registry  # noqa: F401  (stands in for the operators of a missing compiled mmcv)
from sw_mm.backbones import ShiftWiseNet
from sw_mm.swap import Swap, plan_swap

TABLE = Path(__file__).parents[1] / 'docs' / 'backbone_swap.md'
BACKBONE = 'shiftwise-tiny'
SMALL = dict(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32))
SIZE = 128

SEGMENTORS = sorted(
    f'mmseg::_base_/models/{path.name}'
    for path in (Path(get_installed_path('mmsegmentation')) / '.mim/configs/_base_/models').glob('*.py')
)
DETECTORS = [
    f'mmdet::{name}.py'
    for name in (
        'atss/atss_r50_fpn_1x_coco',
        'autoassign/autoassign_r50-caffe_fpn_1x_coco',
        'carafe/faster-rcnn_r50_fpn-carafe_1x_coco',
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco',
        'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
        'centernet/centernet-update_r50_fpn_8xb8-amp-lsj-200e_coco',
        'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco',
        'centernet/centernet_r18_8xb16-crop512-140e_coco',
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance',
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco',
        'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco',
        'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco',
        'dab_detr/dab-detr_r50_8xb2-50e_coco',
        'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
        'ddod/ddod_r50_fpn_1x_coco',
        'ddq/ddq-detr-4scale_r50_8xb2-12e_coco',
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
        'detectors/detectors_cascade-rcnn_r50_1x_coco',
        'detr/detr_r50_8xb2-150e_coco',
        'dino/dino-4scale_r50_8xb2-12e_coco',
        'double_heads/dh-faster-rcnn_r50_fpn_1x_coco',
        'dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco',
        'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco',
        'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco',
        'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco',
        'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco',
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        'foveabox/fovea_r50_fpn_4xb4-1x_coco',
        'fpg/faster-rcnn_r50_fpg_crop640-50e_coco',
        'free_anchor/freeanchor_r50_fpn_1x_coco',
        'fsaf/fsaf_r50_fpn_1x_coco',
        'gfl/gfl_r50_fpn_1x_coco',
        'grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco',
        'guided_anchoring/ga-retinanet_r50_fpn_1x_coco',
        'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco',
        'htc/htc_r50_fpn_1x_coco',
        'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
        'maskformer/maskformer_r50_ms-16xb1-75e_coco',
        'ms_rcnn/ms-rcnn_r50_fpn_1x_coco',
        'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco',
        'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco',
        'pafpn/faster-rcnn_r50_pafpn_1x_coco',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco',
        'pisa/faster-rcnn_r50_fpn_pisa_1x_coco',
        'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco',
        'pvt/retinanet_pvt-t_fpn_1x_coco',
        'queryinst/queryinst_r50_fpn_1x_coco',
        'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco',
        'retinanet/retinanet_r50-caffe_fpn_1x_coco',
        'rpn/rpn_r50-caffe-c4_1x_coco',
        'rpn/rpn_r50_fpn_1x_coco',
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco',
        'sabl/sabl-retinanet_r50_fpn_1x_coco',
        'scnet/scnet_r50_fpn_1x_coco',
        'solo/solo_r50_fpn_1x_coco',
        'solov2/solov2_r50_fpn_1x_coco',
        'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco',
        'ssd/ssd300_coco',
        'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
        'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
        'tood/tood_r50_fpn_1x_coco',
        'tridentnet/tridentnet_r50-caffe_1x_coco',
        'vfnet/vfnet_r50_fpn_1x_coco',
        'yolact/yolact_r50_1xb8-55e_coco',
        'yolo/yolov3_d53_8xb8-320-273e_coco',
        'yolof/yolof_r50-c5_8xb8-1x_coco',
        'yolox/yolox_nano_8xb8-300e_coco',
        'yolox/yolox_tiny_8xb8-300e_coco',
    )
]
CLASSIFIERS = [
    f'mmpretrain::{name}.py'
    for name in (
        '_base_/models/resnet34_gem',
        'arcface/resnet50-arcface_8xb32_inshop',
        'barlowtwins/barlowtwins_resnet50_8xb256-coslr-300e_in1k',
        'byol/byol_resnet50_16xb256-coslr-200e_in1k',
        'conformer/conformer-tiny-p16_8xb128_in1k',
        'convnext/convnext-tiny_32xb128_in1k',
        'csra/resnet101-csra_1xb16_voc07-448px',
        'deit/deit-small-distilled_4xb256_in1k',
        'densecl/densecl_resnet50_8xb32-coslr-200e_in1k',
        'efficientformer/efficientformer-l1_8xb128_in1k',
        'hrnet/hrnet-w18_4xb32_in1k',
        'lenet/lenet5_mnist',
        'levit/levit-128_8xb256_in1k',
        'mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k',
        'mobilenet_v3/mobilenet-v3-small_8xb128_in1k',
        'mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k',
        'mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k',
        'resnet/resnet18_8xb16_cifar10',
        'resnet/resnet50_8xb32_in1k',
        'simclr/simclr_resnet50_16xb256-coslr-200e_in1k',
        'simsiam/simsiam_resnet50_8xb32-coslr-100e_in1k',
        'swav/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px',
        'swin_transformer/swin-tiny_16xb64_in1k',
        'vig/vig-tiny_8xb128_in1k',
        'vision_transformer/vit-base-p16_64xb64_in1k',
    )
]
CASES = [*SEGMENTORS, *DETECTORS, *CLASSIFIERS]
# What no backbone but its own can be put into, by parts of the names.
REFUSED = (
    *('bisenet', 'cgnet', 'cornernet', 'erfnet', 'fast_scnn', 'icnet', 'stdc', 'unet', 'vpd'),  # architectures
    *('detectors/', 'tridentnet', 'caffe-c4_ms', 'san_'),  # parts that take more than maps
    *('dpt', 'setr', 'conformer', 'deit', 'mae/', 'lenet/'),  # heads for other networks
    *('dmnet', 'lraspp', 'centernet_r18'),  # heads for other layouts or strides
)
FAST = {
    'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
    'mmseg::_base_/models/dpt_vit-b16.py',
    'mmseg::_base_/models/fastfcn_r50-d32_jpu_psp.py',
    'mmseg::_base_/models/ocrnet_r50-d8.py',
    'mmseg::_base_/models/upernet_vit-b16_ln_mln.py',
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py',
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',
    'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'mmpretrain::simclr/simclr_resnet50_16xb256-coslr-200e_in1k.py',
}


@contextmanager
def small_backbone() -> Iterator[None]:
    """Make ``shiftwise-tiny`` much smaller than it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ShiftWiseNet.arch_settings, 'tiny', SMALL)
        yield


@contextmanager
def image_size(size: int) -> Iterator[None]:
    """Make images of another size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), 'SIZE', size)
        yield


def segmentation_samples(count: int, classes: int) -> list:
    from mmseg.structures import SegDataSample

    labels = torch.arange(SIZE * SIZE).view(1, SIZE, SIZE) // 64 % classes
    meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), padding_size=[0] * 4)
    return [SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta) for _ in range(count)]


def detection_samples(count: int, semantic_size: int, with_masks: bool) -> list:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, SIZE, SIZE), dtype=np.uint8)
    masks[0, 8:72, 8:56] = masks[1, 40:120, 60:124] = 1
    samples = []
    for _ in range(count):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE),
                ori_shape=(SIZE, SIZE),
                batch_input_shape=(SIZE, SIZE),
                pad_shape=(SIZE, SIZE),
                scale_factor=(1.0, 1.0),
                border=[0, SIZE, 0, SIZE],
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8.0, 8, 56, 72], [60, 40, 124, 120]]),
            labels=torch.tensor([3, 5]),
        )
        if with_masks:
            sample.gt_instances.masks = BitmapMasks(masks, SIZE, SIZE)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, semantic_size, semantic_size, dtype=torch.long))
        samples.append(sample)
    return samples


def classification_samples(count: int, several: bool = False) -> list:
    from mmpretrain.structures import DataSample

    return [
        DataSample().set_gt_label(3).set_gt_score(torch.eye(20)[3]) if several else DataSample().set_gt_label(3)
        for _ in range(count)
    ]


def build(swap: Swap) -> torch.nn.Module:
    config = swap.config.model
    init_default_scope(swap.library)
    MMLogger.get_instance('swap', log_level='ERROR')
    MessageHub.get_instance('swap').update_info_dict(dict(epoch=0, iter=0, max_epochs=12, max_iters=100))
    preprocessor = config.get('data_preprocessor')
    if swap.library == 'mmpretrain' and preprocessor is None:
        preprocessor = config.data_preprocessor = swap.config.get('data_preprocessor')
    if preprocessor is not None:
        preprocessor.pop('batch_augments', None)  # some enlarge the images
        if swap.library == 'mmseg':
            preprocessor.size = (SIZE, SIZE)
    # The heads of SCNet share their widths.
    shrink(config, {key: value for key, value in SHRUNK.items() if config.type != 'SCNet'})
    if swap.library == 'mmpretrain' and config.head.type in ('EfficientFormerClsHead', 'LeViTClsHead'):
        config.head.distillation = False  # which mmpretrain does not train
    if 'prototype' in config:
        config.prototype = torch.rand(5, SIZE)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(config))
    model.init_weights()
    if config.type == 'QueryInst':  # mmdet cannot paste masks of boxes that leave the image
        for name, module in model.named_modules():
            if name.endswith('fc_reg'):
                torch.nn.init.zeros_(module.weight)
    return model


SHRUNK = dict(
    fc_out_channels=32,
    feedforward_channels=64,
    num_queries=100,
)


def shrink(config: dict | list, sizes: dict[str, int]) -> None:
    """Make heads smaller in what does not depend on the backbone."""
    for key, value in config.items() if isinstance(config, dict) else enumerate(config):
        if key in ('rpn', 'rpn_proposal') and isinstance(value, dict):
            value.max_per_img = 20
        if isinstance(value, dict | list):
            shrink(value, sizes)
        elif key in sizes:
            config[key] = sizes[key]
        elif key == 'num_layers' and value == 6:
            config[key] = 2


def data_of(model: torch.nn.Module, swap: Swap) -> dict:
    images = [torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)]
    if swap.library == 'mmseg':
        head = swap.config.model.decode_head
        classes = (head[-1] if isinstance(head, list) else head).num_classes
        return dict(inputs=images, data_samples=segmentation_samples(2, classes))
    if swap.library == 'mmdet':
        pipeline = str(swap.config.train_dataloader)
        with_masks = "'with_mask': True" in pipeline or 'LoadPanopticAnnotations' in pipeline
        eighth = swap.config.model.type in ('HybridTaskCascade', 'SCNet')
        return dict(inputs=images, data_samples=detection_samples(2, SIZE // 8 if eighth else SIZE, with_masks))
    if contrastive(swap):
        views = dict(swap.config.model.head.loss).get('num_crops', [2])  # SwAV has large and small crops
        images = torch.stack(images)
        views = [images.flip(-1) if i % 2 else images for i in range(sum(views))]
        return dict(inputs=views, data_samples=classification_samples(2))
    return dict(inputs=images, data_samples=classification_samples(2, several='CSRA' in swap.config.model.head.type))


def contrastive(swap: Swap) -> bool:
    return 'SelfSup' in str((swap.config.model.get('data_preprocessor') or {}).get('type'))


def train_and_predict(swap: Swap) -> None:
    """Take one step of training and predict once."""
    model = build(swap).train()
    data = data_of(model, swap)
    loss, _ = model.parse_losses(model(**model.data_preprocessor(data, training=True), mode='loss'))
    assert loss.isfinite()
    assert loss != 0
    loss.backward()
    backbones = [(name, m) for name, m in model.named_modules() if type(m) is ShiftWiseNet and m.training]
    assert backbones
    learned = [p.grad is not None for name, p in backbones[0][1].named_parameters()]
    assert any(learned)
    assert all(learned) or swap.config.get('find_unused_parameters')
    assert all(p.grad.isfinite().all() for p in backbones[0][1].parameters() if p.grad is not None)
    if contrastive(swap):
        return  # contrastive learners predict nothing
    model.eval()
    if swap.config.model.get('bbox_head', {}).get('type') == 'SSDHead':
        model.bbox_head.loss_cls = None  # mmdet 3.3 asks for it, and SSDHead has none
    with torch.no_grad():
        if hasattr(model, 'prototype'):
            model.prototype = torch.rand(5, swap.config.model.head.in_channels)
            model.prepare_prototype()
        data = dict(inputs=data['inputs'][:1], data_samples=data['data_samples'][:1])
        predictions = model(**model.data_preprocessor(data, training=False), mode='predict')
    assert len(predictions) == 1


class Row(NamedTuple):
    """A row of the table: the config, its backbone, the strides of the maps that take the place of its, the result."""

    config: str
    old: str
    strides: str
    result: str

    def __str__(self) -> str:
        return f'| {" | ".join(self)} |'


def try_out(config: str) -> Row:
    """Swap the backbone, and train and predict with the new one, unless it is refused."""
    with small_backbone(), image_size(320 if 'ssd300' in config else 128):
        try:
            swap = plan_swap(config, BACKBONE)
        except ValueError as error:
            old, reason = re.fullmatch(rf'(?:{BACKBONE} cannot take the place of (\w+): )?(.*)', str(error)).groups()
            return Row(f'`{config}`', old or '', '', f'refused: {reason}')
        try:
            train_and_predict(swap)
            result = 'works'
        except NotImplementedError as error:
            operator = re.search('compiled operator `([^`]+)`', str(error))
            if operator is None:
                raise
            result = f'needs a compiled mmcv, for `{operator[1]}`'
        encoder = swap.config.model.get('backbone') or swap.config.model.image_encoder
        strides = [str(4 * 2**stage) for stage in encoder.get('out_indices', ())]
        return Row(f'`{config}`', swap.old, ', '.join(strides) or 'vector', result)


@pytest.mark.parametrize(
    'config', [pytest.param(config, marks=() if config in FAST else pytest.mark.slow) for config in CASES]
)
def test_table_says_what_happens(config):
    assert str(try_out(config)) in TABLE.read_text().splitlines()


def test_table_has_all_and_nothing_else():
    text = TABLE.read_text()
    rows = [line for line in text.splitlines() if line.startswith('| `')]
    assert [row.split('`')[1] for row in rows] == CASES
    assert count(rows) in text
    refused = {row.split('`')[1] for row in rows if '| refused: ' in row}
    assert refused == {config for config in CASES if any(name in config for name in REFUSED)}


def count(rows: list[str]) -> str:
    works, needs, refused = (
        sum(f'| {result}' in row for row in rows) for result in ('works |', 'needs a compiled', 'refused: ')
    )
    return (
        f'Of {len(rows)} configs {works} work, {needs} need operators that only a compiled mmcv has, and {refused} are '
        'refused.'
    )


def write_table() -> None:
    """Try everything, and replace the table with the line above it."""
    rows = [str(try_out(config)) for config in CASES]
    text = re.sub(r'Of \d+ configs .* are refused\.', count(rows), TABLE.read_text())
    head, line, _ = text.partition('|---|---|---|---|\n')
    TABLE.write_text(head + line + ''.join(f'{row}\n' for row in rows))


if __name__ == '__main__':
    write_table()
