_base_ = './imagenet_adamw_300e.py'

# Fine-tuning: rates that fall with depth, practically no weight decay.
optim_wrapper = dict(
    optimizer=dict(lr=4e-4, weight_decay=1e-8),
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7),
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1
param_scheduler[1].begin = 1
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=512)
