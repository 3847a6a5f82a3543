"""UPerNet with RepLKNet-13 on ADE20K, 80k iterations on 8 GPUs x 2 images: the study of kernel sizes.

Official result (arXiv:2203.06717, section 5): 48.35 mIoU, from the weights of 120 epochs. Batch and warm-up are not
published; these are mmsegmentation's 16 images and the 1500 iterations of the other recipes.
"""

_base_ = './upernet_replknet-31b_8xb2-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='13'))
