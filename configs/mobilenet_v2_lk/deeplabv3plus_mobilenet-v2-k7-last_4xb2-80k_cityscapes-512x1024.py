"""DeepLabV3+ with MobileNetV2, kernels of 7 in its last stage, on Cityscapes, 80k iterations on 4 GPUs x 2 images.

Official result (arXiv:2203.06717, section 3): 74.30 mIoU. The recipe is not published; this one is mmsegmentation's.
README.md says how to start from a classifier.
"""

_base_ = './deeplabv3plus_mobilenet-v2-k3_4xb2-80k_cityscapes-512x1024.py'

model = dict(backbone=dict(kernel_size=7, large_kernels='last_stage'))
