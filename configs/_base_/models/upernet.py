# mmsegmentation's UPerNet (512 channels, FCN auxiliary head on stage 3) for ADE20K. Configs add the type of the
# backbone and the widths of its maps.
_base_ = 'mmseg::_base_/models/upernet_r50.py'

custom_imports = dict(imports=['sw_mm.registry'])
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Official weights to start from (--cfg-options model.backbone.init_cfg.checkpoint=FILE); None: from scratch.
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
    ),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
