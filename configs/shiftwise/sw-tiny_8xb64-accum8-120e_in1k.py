"""SW-T on ImageNet-1K, 120 epochs on 8 GPUs x 64 images x 8 accumulated steps: the ablations' last row.

Known second-hand: 82.27 top-1.
"""

_base_ = '../sw_imagenet.py'

train_cfg = dict(max_epochs=120)
