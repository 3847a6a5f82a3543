"""UniRepLKNet-L on ImageNet-22K at 192 pixels (21841 classes), 90 epochs on 32 GPUs x 128 images.

The pre-training has no published score. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an
update.
"""

_base_ = './unireplknet-s_32xb128-90e_in22k.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 192
model = dict(backbone=dict(arch='l'), head=dict(in_channels=1536))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
# A quarter of the rate of the smaller nets.
optim_wrapper = dict(optimizer=dict(lr=1e-3))
