_base_ = './coco_adamw_1x.py'

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 36
param_scheduler[1].milestones = [27, 33]
train_cfg = dict(max_epochs=36)
