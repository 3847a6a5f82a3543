_base_ = ['mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py', 'mmpretrain::_base_/default_runtime.py']

# What the papers took over from ConvNeXt: 4e-3 for 4096 images, no weight decay on biases, norms and layer scales, no
# gradient clipping. An epoch-based schedule stays right whatever the batch.
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=20, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=4096)
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook', save_best='auto', max_keep_ckpts=3))
