_base_ = ['mmpretrain::_base_/schedules/imagenet_bs256.py', 'mmpretrain::_base_/default_runtime.py']

# RepLKNet's study of MobileNetV2: SGD, 0.1 for 256 images, 5 epochs of warm-up and 95 along a cosine. Its weight decay
# is not published; this is the usual one of MobileNetV2.
optim_wrapper = dict(optimizer=dict(weight_decay=4e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=5, convert_to_iter_based=True),
]
auto_scale_lr = dict(enable=False)
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook', save_best='auto', max_keep_ckpts=3))
