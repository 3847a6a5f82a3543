# A backbone that classifies returns one pooled vector, so there is no neck. Configs add the type of the backbone and
# the width of the head.
custom_imports = dict(imports=['sw_mm.registry'])
model = dict(
    type='ImageClassifier',
    backbone=dict(
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Official weights to start from (--cfg-options model.backbone.init_cfg.checkpoint=FILE); None: from scratch.
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
