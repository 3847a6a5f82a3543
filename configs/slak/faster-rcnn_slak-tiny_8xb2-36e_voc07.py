"""Faster R-CNN with SLaK-T on VOC 2007, 36 epochs on 8 GPUs x 2 images.

The recipe is that of the paper (arXiv:2207.03620); where it is silent, the warm-up and the steps of COCO's 3x schedule
hold. The authors release neither config nor weights.
"""

_base_ = [
    '../_base_/models/faster_rcnn.py',
    '../_base_/datasets/voc2007.py',
    '../_base_/schedules/coco_adamw_3x.py',
    '../_base_/sparse/slak_frozen.py',
]

model = dict(
    backbone=dict(type='sw_mm.SLaK', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0),
    neck=dict(in_channels=[124, 249, 499, 998]),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
