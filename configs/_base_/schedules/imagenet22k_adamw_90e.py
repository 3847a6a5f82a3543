_base_ = './imagenet_adamw_300e.py'

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 5
param_scheduler[1].begin = 5
train_cfg = dict(max_epochs=90)
# There is nothing to evaluate on, and so no best checkpoint.
val_cfg = None
test_cfg = None
default_hooks = dict(checkpoint=dict(save_best=None))
