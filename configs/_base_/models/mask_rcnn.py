# mmdetection's Mask R-CNN. Configs add the type of the backbone and the widths of its maps.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

custom_imports = dict(imports=['sw_mm.registry'])
model = dict(
    backbone=dict(
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Official weights to start from (--cfg-options model.backbone.init_cfg.checkpoint=FILE); None: from scratch.
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
    )
)
