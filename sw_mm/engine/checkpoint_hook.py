"""Checkpoints that are whole or not there, whenever the process dies."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

BACKEND = 'sw_mm.atomic'


class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name when all of their bytes are on the disk, and not before."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file beside ``filepath``, flush it to the disk and rename it."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for all attempts, so that a killed process leaves one file at most, which the next one overwrites.
        part = path.with_name(f'.{path.name}.part')
        with part.open('wb') as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if os.name == 'posix':  # elsewhere a folder cannot be flushed
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text as ``put`` writes bytes."""
        self.put(obj.encode(encoding), filepath)


register_backend(BACKEND, AtomicLocalBackend, force=True)


class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` that never leaves a run without a checkpoint to resume.

    A checkpoint is written beside its place, flushed and renamed; ``last_checkpoint`` likewise; only then are the files
    deleted that ``max_keep_ckpts``, or a better result, makes superfluous. Use it in the place of the default::

        default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook', interval=8000, by_epoch=False))

    Before it saves, it calls ``gather_state(runner)`` of the hooks that have such a method, in all processes.

    Arguments are those of ``CheckpointHook``. With ``backend_args`` the backend named there writes, in its own way.
    """

    def __init__(self, *args, backend_args: dict | None = None, **kwargs) -> None:
        local = backend_args is None and kwargs.get('file_client_args') is None
        super().__init__(*args, backend_args=dict(backend=BACKEND) if local else backend_args, **kwargs)

    def before_train(self, runner: Runner) -> None:
        """Delete what the run that is resumed had no more time to delete."""
        super().before_train(runner)
        if is_main_process():
            self._delete_steps(runner.message_hub.runtime_info.get('superfluous_ckpt_ids', ()))

    def _delete_steps(self, steps: Iterable[int]) -> None:
        for step in steps:
            _delete(self.file_backend, self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        superfluous = []
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                superfluous.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            runner.message_hub.update_info('superfluous_ckpt_ids', superfluous)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        for hook in runner.hooks:  # the runner saves in the first process alone
            if hasattr(hook, 'gather_state'):
                hook.gather_state(runner)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        AtomicLocalBackend().put_text(self.last_ckpt, os.path.join(runner.work_dir, 'last_checkpoint'))
        self._delete_steps(superfluous)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        if not self.save_best:
            return
        # The base class deletes the previous best before it writes the new one.
        backend, later = self.file_backend, []
        self.file_backend = _DeleteLater(backend, later)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        current = {self.best_ckpt_path} if hasattr(self, 'best_ckpt_path') else set(self.best_ckpt_path_dict.values())
        for path in later:
            if path not in current:
                _delete(backend, path)


class _DeleteLater:
    """A file backend that only notes what it should delete."""

    def __init__(self, backend: Any, noted: list[str]) -> None:
        self._backend, self.remove = backend, noted.append
        self.rmtree = noted.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _delete(backend: Any, path: str) -> None:
    if backend.isfile(path):
        backend.remove(path)
    elif backend.isdir(path):  # a checkpoint of DeepSpeed
        backend.rmtree(path)
