_base_ = 'mmseg::_base_/schedules/schedule_160k.py'

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    # A decay rate of 1 gives every layer the same rate; what remains is no weight decay on biases and norms.
    paramwise_cfg=dict(decay_rate=1.0, num_layers=9),
)

# Both start at iteration 0 and multiply: the warm-up of mmcv 1.x, which the published runs used.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160000),
]

train_cfg = dict(val_interval=4000)
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook', interval=8000, save_best='mIoU'))
