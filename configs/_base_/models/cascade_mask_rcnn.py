# mmdetection's Cascade Mask R-CNN with the box heads that large-kernel papers use: four shared convs and one fc with
# SyncBN, class-specific boxes, GIoU on decoded boxes. Configs add the type of the backbone and the widths of its maps.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

custom_imports = dict(imports=['sw_mm.registry'])
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        norm_cfg=norm_cfg,
        # Official weights to start from (--cfg-options model.backbone.init_cfg.checkpoint=FILE); None: from scratch.
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
    ),
    roi_head=dict(
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=target_stds),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=norm_cfg,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for target_stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ]
    ),
)
