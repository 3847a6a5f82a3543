"""Large-kernel backbones for mmpretrain, mmsegmentation and mmdetection.

Importing this package costs nothing. `sw_mm.registry` makes its classes known to the three libraries; it is imported by
any config that names a type of scope `sw_mm`, such as `type='sw_mm.ShiftWiseNet'`. `sw_mm.swap_backbone` puts a
backbone into any config; it is imported when it is asked for.
"""

__version__ = '0.1.0'


def __getattr__(name: str) -> object:
    if name == 'swap_backbone':
        from sw_mm.swap import swap_backbone

        return swap_backbone
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
