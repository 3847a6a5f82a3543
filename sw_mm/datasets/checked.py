"""What the checked data sets of all three libraries share."""

import os.path as osp
from typing import ClassVar

ADVICE = (
    '{how_to_get}\n'
    'If the data are somewhere else, say so with `--cfg-options train_dataloader.dataset.data_root=DIR '
    'val_dataloader.dataset.data_root=DIR test_dataloader.dataset.data_root=DIR`{also}.'
)


class CheckedDataMixin:
    """Refuse to read data that are not there, and say where they were looked for and how to get them.

    Goes before a data set class in the list of bases. The check runs when the data list is read, that is when the data
    set is built (later if ``lazy_init``), with the paths as they are after ``--cfg-options``. Paths that are URIs
    (``s3://...``) are left to their storage backend.

    Raises:
        FileNotFoundError: On reading, if a folder of ``data_prefix`` or ``ann_file`` does not exist, or no sample is
            there.
    """

    HOW_TO_GET: ClassVar[str]
    ALSO_CHANGE: ClassVar[str] = ''

    def load_data_list(self) -> list[dict]:
        folders = {f'data_prefix.{key}': path for key, path in self.data_prefix.items()}
        for argument, path in {**folders, 'ann_file': self.ann_file}.items():
            exists = osp.exists if argument == 'ann_file' else osp.isdir
            if path and '://' not in path and not exists(path):
                raise FileNotFoundError(self._explain(f'{argument} does not exist: {path}'))
        data_list = super().load_data_list()
        if not data_list:
            raise FileNotFoundError(self._explain(f'no sample found in {", ".join(folders.values())}'))
        return data_list

    def _explain(self, problem: str) -> str:
        root = self.data_root or '.'
        if '://' not in root and not osp.isdir(root):
            problem += f'\nThe folder data_root={root!r} itself is missing (looked for at {osp.abspath(root)})'
        advice = ADVICE.format(how_to_get=self.HOW_TO_GET, also=self.ALSO_CHANGE)
        return f'{type(self).__name__}: {problem}.\n{advice}'
