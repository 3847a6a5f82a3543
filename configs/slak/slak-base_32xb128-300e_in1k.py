"""SLaK-B on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/VITA-Group/SLaK): 84.0 top-1. As there, 40 % of the weights are zero and move. On 8
GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './slak-small_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=1331))
