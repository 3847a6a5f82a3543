"""Lists our models in mmpretrain's model hub."""

from functools import cache
from pathlib import Path
from types import ModuleType

MIM = Path(__file__).parent / '.mim'


@cache
def list_models(apis: ModuleType) -> None:
    """Lets `mmpretrain.list_models` and `mmpretrain.get_model` know the models of `model-index.yml`, once.

    Args:
        apis: The module `mmpretrain.apis.model`.
    """
    apis.ModelHub.register_model_index(MIM / 'model-index.yml', config_prefix=MIM)
