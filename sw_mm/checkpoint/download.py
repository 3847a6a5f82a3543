"""Files by path or URL, and whether they are the files that were meant."""

import hashlib
import os
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from torch import hub

PICKLE = b'\x80'  # how every pickle begins; the format of torch<1.6 is one


def fetch(checkpoint: str | os.PathLike, sha256: str | None = None) -> Path:
    """Return the path of a checkpoint, downloading it if need be.

    A URL goes into torch's cache, the folder ``checkpoints`` in ``torch.hub.get_dir()``, under the name that it ends
    in. A file that is there already is used, unless it has another SHA-256 than the given one.

    Args:
        checkpoint: Path of the file, ``~`` being the home folder, or an https URL.
        sha256: SHA-256 of the file, or at least its first 8 digits.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If the URL cannot be downloaded.
        TypeError: If ``checkpoint`` is no path and no URL.
        ValueError: If the URL is not https or leads to no checkpoint, ``sha256`` is no such number, or the file has
            another.
    """
    check_sha256(sha256)
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f'checkpoint must be a path or an https URL; got {checkpoint!r}')
    name = os.fspath(checkpoint)
    if '://' in name:
        return _download(name, sha256)
    path = Path(os.path.abspath(os.path.expanduser(name)))
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint={name!r} is not a file (looked for at {path}); give the path of a downloaded checkpoint, or '
            'None to train from scratch'
        )
    if sha256 is not None and not (digest := file_sha256(path)).startswith(sha256.lower()):
        raise ValueError(
            f'checkpoint={name!r} has the SHA-256 {digest}, not sha256={sha256!r}: it is another file or a damaged one'
        )
    return path


def check_sha256(sha256: str | None) -> None:
    """Check that the argument of this name is None, or a SHA-256 or the beginning of one.

    Raises:
        ValueError: If it is anything else.
    """
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch('[0-9a-fA-F]{8,64}', sha256)):
        raise ValueError(f'sha256 must be at least the first 8 of the 64 hexadecimal digits; got {sha256!r}')


def file_sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, in lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, sha256: str | None) -> Path:
    parts = urlparse(url)
    file_name = Path(unquote(parts.path)).name
    if parts.scheme != 'https' or not parts.netloc or not file_name:
        raise ValueError(f'checkpoint={url!r} must be an https URL that ends in the name of a file, or a path')
    path = Path(hub.get_dir(), 'checkpoints', file_name)
    if path.is_file() and (sha256 is None or file_sha256(path).startswith(sha256.lower())):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        hub.download_url_to_file(url, str(path), hash_prefix=sha256 and sha256.lower())
    except RuntimeError as error:  # torch's word for another hash
        raise ValueError(f'checkpoint={url!r} does not have sha256={sha256!r}: {error}') from None
    except OSError as error:
        raise ConnectionError(
            f'checkpoint={url!r} could not be downloaded: {error}; fetch it some other way and give its path'
        ) from error
    if not _looks_saved(path):
        size = path.stat().st_size
        path.unlink()  # or the next run would take it for the file
        raise ValueError(
            f'checkpoint={url!r} gave {size} bytes that are no checkpoint: either a page that offers the file, or '
            'only a part of it; download the file with a browser and give its path'
        )
    return path


def _looks_saved(path: Path) -> bool:
    """Return whether a file has the beginning of a pickle, or beginning and end of a zip archive."""
    with path.open('rb') as file:
        return file.read(1) == PICKLE or zipfile.is_zipfile(path)
