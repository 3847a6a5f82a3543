"""Let mmengine's ``compile=True`` train with today's torch.

mmengine compiles the whole of ``train_step``, the optimiser's update in it. The parameter groups come from a config and
are ConfigDicts, which torch's compiler fails on. The update stays outside: its kernels are fused over all parameters
already.
"""

from types import ModuleType

from sw_mm.compat._after_import import after_import


def install() -> None:
    """Have ``torch.compile`` leave ``OptimWrapper.update_params`` as it is."""
    after_import('mmengine.optim.optimizer.optimizer_wrapper', _keep_update_out)


def _keep_update_out(optimizer_wrapper: ModuleType) -> None:
    import torch

    wrapper = optimizer_wrapper.OptimWrapper
    wrapper.update_params = torch.compiler.disable(wrapper.update_params)
