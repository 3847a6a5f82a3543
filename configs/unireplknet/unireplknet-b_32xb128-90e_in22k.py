"""UniRepLKNet-B on ImageNet-22K (21841 classes), 90 epochs on 32 GPUs x 128 images.

The pre-training has no published score. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an
update.
"""

_base_ = './unireplknet-s_32xb128-90e_in22k.py'

model = dict(backbone=dict(arch='b'), head=dict(in_channels=1024))
