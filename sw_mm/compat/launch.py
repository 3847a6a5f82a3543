"""Distributed runs and mixed precision on machines without a GPU.

mmengine 0.10 selects a GPU on every ``--launcher pytorch``, hands it to DistributedDataParallel, and demands one for
its AmpOptimWrapper. Where torch finds no accelerator:

- the processes talk over gloo, whatever backend ``env_cfg.dist_cfg`` asks for (the libraries' configs all say nccl);
- MMDistributedDataParallel gets no ``device_ids``;
- SyncBatchNorm layers, which torch runs on GPUs only, become BatchNorm layers, as mmengine itself has it in a run of
  one process: each process normalises by its own share of the batch, and a warning says so;
- AmpOptimWrapper (also by ``--amp``) computes in bfloat16, which needs no loss scaling; float16 is refused.

With an accelerator nothing changes, but that it can resume what was trained on the CPU.
"""

import functools
import warnings
from types import ModuleType
from typing import Any

from sw_mm.compat._after_import import after_import


def install() -> None:
    """Have mmengine's launcher, model wrapper and AMP wrapper do without a GPU where there is none."""
    after_import('mmengine.dist.utils', _patch_launcher)
    after_import('mmengine.model.wrappers.distributed', _patch_wrapper)
    after_import('mmengine.runner.runner', _patch_runner)
    after_import('mmengine.optim.optimizer.amp_optimizer_wrapper', _patch_amp)


def _on_cpu() -> bool:
    """Return whether mmengine will train on the CPU. Ask at each use: it may initialise the device's driver."""
    from mmengine.device import get_device

    return get_device() == 'cpu'


def _patch_launcher(dist_utils: ModuleType) -> None:
    init_dist_pytorch = dist_utils._init_dist_pytorch

    @functools.wraps(init_dist_pytorch)
    def init(backend: str, init_backend: str = 'torch', **kwargs: Any) -> None:
        if not _on_cpu() or init_backend != 'torch':
            return init_dist_pytorch(backend, init_backend=init_backend, **kwargs)
        dist_utils.torch_dist.init_process_group(backend='gloo' if backend == 'nccl' else backend, **kwargs)

    dist_utils._init_dist_pytorch = init


def _patch_wrapper(distributed: ModuleType) -> None:
    wrapper = distributed.MMDistributedDataParallel
    construct = wrapper.__init__

    @functools.wraps(construct)
    def init(self, module, *args: Any, **kwargs: Any) -> None:
        if _on_cpu():
            kwargs.pop('device_ids', None)
        construct(self, module, *args, **kwargs)

    wrapper.__init__ = init


def _patch_runner(runner: ModuleType) -> None:
    wrap_model, convert = runner.Runner.wrap_model, runner.convert_sync_batchnorm

    @functools.wraps(wrap_model)
    def wrap(self, model_wrapper_cfg, model):
        if self.distributed and _on_cpu() and not runner.is_model_wrapper(model):
            if any(type(layer).__name__ == 'SyncBatchNorm' for layer in model.modules()):
                _warn_of_local_statistics()
            model = runner.revert_sync_batchnorm(model)
        return wrap_model(self, model_wrapper_cfg, model)

    @functools.wraps(convert)
    def convert_sync_batchnorm(module, implementation='torch'):
        if not _on_cpu():
            return convert(module, implementation)
        _warn_of_local_statistics()
        return module

    runner.Runner.wrap_model = wrap
    runner.convert_sync_batchnorm = convert_sync_batchnorm


def _warn_of_local_statistics() -> None:
    warnings.warn(
        'SyncBatchNorm runs on GPUs only: its layers become BatchNorm, and each process normalises by its own share of '
        "the batch. Set norm_cfg=dict(type='BN') to silence this",
        stacklevel=3,
    )


def _patch_amp(amp_optimizer_wrapper: ModuleType) -> None:
    wrapper = amp_optimizer_wrapper.AmpOptimWrapper
    construct, load = wrapper.__init__, wrapper.load_state_dict

    @functools.wraps(construct)
    def init(self, loss_scale: Any = 'dynamic', dtype: Any = None, use_fsdp: bool = False, **kwargs: Any) -> None:
        import torch

        if not _on_cpu():
            return construct(self, loss_scale, dtype, use_fsdp, **kwargs)
        if dtype not in (None, 'bfloat16', torch.bfloat16):
            raise ValueError(
                f"AmpOptimWrapper: dtype={dtype!r} needs a GPU, and torch finds none. Pass dtype='bfloat16' for mixed "
                "precision on the CPU, or type='OptimWrapper' for full precision"
            )
        amp_optimizer_wrapper.OptimWrapper.__init__(self, **kwargs)
        # bfloat16 has float32's range of exponents: nothing underflows, nothing is scaled.
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16

    @functools.wraps(load)
    def load_state_dict(self, state_dict: dict) -> None:
        if not state_dict.get('loss_scaler'):  # saved on the CPU; a GPU's scaler refuses it and can start anew
            state_dict = {key: value for key, value in state_dict.items() if key != 'loss_scaler'}
        load(self, state_dict)

    wrapper.__init__, wrapper.load_state_dict = init, load_state_dict
