"""UPerNet with UniRepLKNet-S of ImageNet-22K on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 51.9 mIoU, 52.7 with multi-scale testing. Only the weights
to start from differ from those of ImageNet-1K.
"""

_base_ = './upernet_unireplknet-s_8xb2-160k_ade20k-512x512.py'
