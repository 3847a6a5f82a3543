"""SLaK-S on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/VITA-Group/SLaK): 83.8 top-1. As there, 40 % of the weights are zero and move. On 8
GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './slak-tiny_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))

# S and B move fewer weights more often.
custom_hooks = _base_.custom_hooks
custom_hooks[0].update(prune_rate=0.3, interval=100)
