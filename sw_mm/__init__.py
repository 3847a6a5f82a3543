"""Large-kernel backbones for mmpretrain, mmsegmentation and mmdetection.

Importing this package costs nothing. `sw_mm.registry` makes its classes known to the three libraries; it is imported by
any config that names a type of scope `sw_mm`, such as `type='sw_mm.ShiftWiseNet'`.
"""

__version__ = '0.1.0'
