"""What torch calls when it has been imported, by this distribution's entry point `torch.backends`.

A config that names a type of scope `sw_mm` brings `sw_mm.compat` along, which is early enough for training. But
mmdetection's `tools/test.py` imports mmcv's operators before it reads any config, and fails there if mmcv has none.
"""

from contextlib import suppress


def install() -> None:
    """Puts the cures of `sw_mm.compat` in place; they cost nothing until mmengine or mmcv is imported."""
    # An installation that cannot work is reported where sw_mm is used, not to everyone who imports torch.
    with suppress(RuntimeError):
        import sw_mm.compat  # noqa: F401
