"""UniRepLKNet-XL on ImageNet-22K at 192 pixels (21841 classes), 90 epochs on 32 GPUs x 128 images.

The pre-training has no published score. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an
update.
"""

_base_ = './unireplknet-l_32xb128-90e_in22k.py'

model = dict(backbone=dict(arch='xl', drop_path_rate=0.2), head=dict(in_channels=2048))
