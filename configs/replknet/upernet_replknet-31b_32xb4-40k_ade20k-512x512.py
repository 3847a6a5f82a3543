"""UPerNet with RepLKNet-31B on ADE20K, 40k iterations on 32 GPUs x 4 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 49.9 mIoU, 50.6 with multi-scale testing, from the
ImageNet-1K weights. The paper counts 160k iterations of 32 images; the authors ran as many samples like this.
"""

_base_ = './upernet_replknet-31b_8xb2-80k_ade20k-512x512.py'

model = dict(backbone=dict(drop_path_rate=0.5))

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 400
param_scheduler[1].end = 40000
train_cfg = dict(max_iters=40000)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=128)
