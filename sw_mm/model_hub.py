"""Make our models known to mmpretrain's model hub."""

import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

MIM = Path(__file__).parent / '.mim'


@cache
def register_models(apis: ModuleType) -> None:
    """Let ``mmpretrain.list_models`` and ``mmpretrain.get_model`` know the models of ``model-index.yml``, once.

    Their ``Weights`` are official files under official names, of which mmpretrain would load what happens to fit. So
    ``pretrained=True`` finds no weights; ``init_cfg`` of the backbone and the converter take these files.

    Args:
        apis: The module ``mmpretrain.apis.model``.
    """
    index = MIM / 'model-index.yml'
    if not index.is_file():
        warnings.warn(
            f"{index} is missing, so mmpretrain does not list sw_mm's models. In a checkout it is a link, which some "
            'ways to copy a folder lose; install swmm again from a clone or a wheel',
            stacklevel=2,
        )
        return
    apis.ModelHub.register_model_index(index, config_prefix=MIM)
    for model in apis.ModelHub._models_dict.values():
        if Path(model.filepath).is_relative_to(MIM):
            model.weights = None
