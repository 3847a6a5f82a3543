"""``compile=True`` with an optimiser that a config has set up."""

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn

import sw_mm.compat  # noqa: F401


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(inputs).square().mean()}


def test_a_compiled_train_step_updates(monkeypatch):
    """As mmengine's constructors with parameter-wise settings have it: the groups are ConfigDicts."""
    torch.manual_seed(0)
    models = [Model(), Model()]
    models[1].load_state_dict(models[0].state_dict())
    for model, compiled in zip(models, (False, True), strict=True):
        optimizer = torch.optim.AdamW([ConfigDict(params=[parameter], lr=0.1) for parameter in model.parameters()])
        wrapper = OptimWrapper(optimizer)
        step = torch.compile(model.train_step, backend='eager') if compiled else model.train_step
        for value in (1.0, 2.0):
            step(dict(inputs=torch.full((2, 4), value)), wrapper)
    for plain, compiled in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(compiled, plain)
