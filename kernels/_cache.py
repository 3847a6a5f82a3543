"""Where the kernels keep on the disk what takes long to make."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Name the folder for a kind of things, in ``$XDG_CACHE_HOME`` or ``~/.cache``; it need not exist.

    Raises:
        RuntimeError: If there is no home.
    """
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'sw_mm' / kind
