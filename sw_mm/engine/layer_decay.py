"""Layer-wise learning-rate decay for classifiers, segmentors and detectors alike."""

from collections.abc import Iterable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn


class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Scale learning rates by ``decay_rate ** (num_layers + 1 - layer id)``.

    The ids come from the backbone's ``get_layer_depth(param_name, prefix)`` (mmpretrain's convention): 0 for the stem,
    ``num_layers`` for the last stage, ``num_layers + 1`` for its output norms. Everything outside the backbone gets
    ``num_layers + 1`` too, hence the base learning rate. The backbone is ``model.backbone``, or the model itself.

    With ``decay_type='stage_wise'`` the ids are coarser: 0 for the stem and every layer between stages, s + 1 for stage
    s (from 0), ``num_layers + 1`` for the rest. The last stage has id 4 whatever ``num_layers`` is, so a larger value
    slows all of the backbone down, by ``decay_rate ** (num_layers - 3)`` at least. The official recipes with 6 and 12
    mean that.

    Parameters of at most one dimension (biases, norms, layer scales) get no weight decay. All options of
    ``mmengine.optim.DefaultOptimWrapperConstructor`` apply too; one that sets a weight decay wins over this rule.
    Frozen parameters are left out, shared ones are taken once, at their first place. Parameters that end up with the
    same options share one group, which also carries its ``layer_id``.

    Source: the optimiser constructors of shift-wiseConv's ADE20K (``num_layers`` 9) and COCO (12) code, and of SLaK's
    ADE20K code (``'stage_wise'``, 6 and 12), which follow ConvNeXt's.

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper, with its ``optimizer``.
        paramwise_cfg: ``decay_rate`` in (0, 1], required; ``num_layers``, by default what the backbone counts. A larger
            value leaves a gap below the last stage, as in the official COCO recipe; ``decay_type``, ``'layer_wise'``
            (default) or ``'stage_wise'``. The rest is for the base class.

    Raises:
        ValueError: If ``decay_rate``, ``num_layers``, ``decay_type`` or the optimiser's ``lr`` is missing or out of
            range.
        TypeError: If the backbone has no ``get_layer_depth``, or is none of this package with ``'stage_wise'``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, dict(paramwise_cfg or {}))
        self.decay_rate = self.paramwise_cfg.get('decay_rate')
        self.num_layers = self.paramwise_cfg.get('num_layers')
        self.decay_type = self.paramwise_cfg.get('decay_type', 'layer_wise')
        if type(self.decay_rate) not in (int, float) or not 0 < self.decay_rate <= 1:
            raise ValueError(
                f'paramwise_cfg.decay_rate must be a number in (0, 1]; got {self.decay_rate!r}; 1.0 means no decay'
            )
        if self.num_layers is not None and (type(self.num_layers) is not int or self.num_layers < 1):
            raise ValueError(f'paramwise_cfg.num_layers must be a positive integer; got {self.num_layers!r}')
        if self.decay_type not in ('layer_wise', 'stage_wise'):
            raise ValueError(f"paramwise_cfg.decay_type must be 'layer_wise' or 'stage_wise'; got {self.decay_type!r}")
        if self.base_lr is None:
            raise ValueError('optimizer.lr must be given: layer decay scales it')

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Append the groups of ``module`` to ``params``; the base class calls this, also for every submodule."""
        super().add_params(params, module, prefix, **kwargs)
        if not prefix:
            params[:] = self._scaled_groups(module, params)

    def _scaled_groups(self, model: nn.Module, singles: list[dict]) -> list[dict]:
        """Turn the base class' groups of one parameter each into groups of equal options."""
        layer_ids, num_layers = self._layer_ids(model) if self.decay_type == 'layer_wise' else self._stage_ids(model)
        seen, groups = set(), {}
        for single in singles:
            options = dict(single)
            (param,) = options.pop('params')
            if param in seen:
                continue
            seen.add(param)
            only_lr_chosen = 'lr_mult' in options and 'decay_mult' not in options
            if self.base_wd is not None and param.ndim <= 1 and ('weight_decay' not in options or only_lr_chosen):
                options['weight_decay'] = 0.0
            scale = self.decay_rate ** (num_layers + 1 - layer_ids[param])
            options.update(lr=options.get('lr', self.base_lr) * scale, layer_id=layer_ids[param])
            groups.setdefault(repr(sorted(options.items())), {'params': [], **options})['params'].append(param)
        ordered = sorted(groups.values(), key=lambda group: group['layer_id'])
        print_log(self._summary(ordered, num_layers), logger='current')
        return ordered

    def _layer_ids(self, model: nn.Module) -> tuple[dict[nn.Parameter, int], int]:
        """Return the layer id of every parameter, and the number of layers."""
        backbone, prefix = _backbone_of(model)
        if not hasattr(backbone, 'get_layer_depth'):
            raise TypeError(
                'layer decay needs a backbone with get_layer_depth(param_name, prefix), and '
                f'{type(backbone).__name__} has none; use a backbone of sw_mm, or leave optim_wrapper.constructor out'
            )
        places = {
            param: backbone.get_layer_depth(name, prefix)
            for name, param in model.named_parameters()
            if name.startswith(prefix)
        }
        native = max(count for _, count in places.values()) - 2
        num_layers = self.num_layers or native
        self._check_num_layers(num_layers, max((depth for depth, _ in places.values() if depth < native), default=0))
        ids = dict.fromkeys(model.parameters(), num_layers + 1)
        for param, (depth, _) in places.items():
            ids[param] = depth if depth < native else depth + num_layers - native
        return ids, num_layers

    def _stage_ids(self, model: nn.Module) -> tuple[dict[nn.Parameter, int], int]:
        """Return the stage-wise id of every parameter, and the number of layers."""
        backbone, _ = _backbone_of(model)
        if not hasattr(backbone, 'stage_ids'):
            raise TypeError(
                "paramwise_cfg.decay_type='stage_wise' needs a backbone of sw_mm, which knows its stages; "
                f"{type(backbone).__name__} is none: use 'layer_wise'"
            )
        places = backbone.stage_ids()
        least = max(places.values())
        num_layers = self.num_layers or least
        self._check_num_layers(num_layers, least)
        return {**dict.fromkeys(model.parameters(), num_layers + 1), **places}, num_layers

    def _check_num_layers(self, num_layers: int, least: int) -> None:
        if num_layers < least and self.decay_rate < 1:
            raise ValueError(f'paramwise_cfg.num_layers={num_layers} is too small: this backbone needs {least} or more')

    def _summary(self, groups: Iterable[dict], num_layers: int) -> str:
        rows = [
            f'{group["layer_id"]:5}  {group["lr"]:9.3e}  {group.get("weight_decay", self.base_wd)!s:>12}'
            f'  {len(group["params"]):7}'
            for group in groups
        ]
        title = f'Layer decay {self.decay_rate} over {num_layers} layers, {self.decay_type}'
        return '\n'.join([title, 'layer         lr  weight decay  tensors', *rows])


def _backbone_of(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the backbone and the prefix of its parameters' names."""
    return (model.backbone, 'backbone.') if hasattr(model, 'backbone') else (model, '')
