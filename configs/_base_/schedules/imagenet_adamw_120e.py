_base_ = './imagenet_adamw_300e.py'

# RepLKNet's ablations: 4e-3 for 2048 images.
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 10
param_scheduler[1].begin = 10
train_cfg = dict(max_epochs=120)
auto_scale_lr = dict(base_batch_size=2048)
