"""Let configs inherit ``mmseg::...`` where the onedl forks of the OpenMMLab libraries are installed.

The forks keep the import names but not the distribution names, and onedl-mmengine looks mmsegmentation up by the old
one. Nothing changes where mmsegmentation itself is installed.
"""

from types import ModuleType

from sw_mm.compat import stacks
from sw_mm.compat._after_import import after_import


def install() -> None:
    """Have mmengine find onedl-mmsegmentation where it looks for mmsegmentation."""
    after_import('mmengine.config.utils', _name_the_fork)


def _name_the_fork(utils: ModuleType) -> None:
    versions = stacks.installed_versions()
    if 'onedl-mmsegmentation' in versions and 'mmsegmentation' not in versions:
        utils.MODULE2PACKAGE['mmseg'] = 'onedl-mmsegmentation'
