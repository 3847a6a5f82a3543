"""UPerNet with SLaK-S on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/VITA-Group/SLaK): 49.4 mIoU, from the weights of 300 epochs, the zeros of which stay
zero, as here.
"""

_base_ = './upernet_slak-tiny_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
