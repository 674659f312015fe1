"""A LightningModule with a schedule. Run with python -m from the checkout."""

import lightning as L
import torch
from torch.nn import functional as F

from examples.adapters import digits
from fl.adapters import from_lightning
from secagg import SecAggPlus


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 10)
        )

    def training_step(self, batch, _):
        x, y = batch
        return F.cross_entropy(self.layers(x), y)

    def test_step(self, batch, _):
        x, y = batch
        self.log("accuracy", (self.layers(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)]


def trainer():
    return L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)


model = Net()
model = from_lightning(model, trainer, digits.SITE_IMAGES, privacy=[SecAggPlus()]).fit(rounds=3).model
print(trainer().test(model, digits.TEST_IMAGES))
