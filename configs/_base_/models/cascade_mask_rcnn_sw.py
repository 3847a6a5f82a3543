_base_ = './cascade_mask_rcnn.py'

model = dict(
    backbone=dict(type='sw_mm.ShiftWiseNet', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0),
    neck=dict(in_channels=[80, 160, 320, 640]),
)
