"""A torch loop with two inputs in dict batches, augmentation, a loss of its own, mixed precision on a GPU and a
schedule. Run with python -m from the checkout.
"""

import torch
from torch.nn import functional as F

from examples.adapters import digits
from fl.adapters import from_torch
from secagg import SecAggPlus

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten()
        )
        self.out = torch.nn.Linear(16 * 64 + 1, 10)

    def forward(self, image, ink):
        return self.out(torch.cat([self.image(image), ink], dim=1))


def focal_loss(logits, label):
    loss = F.cross_entropy(logits, label, reduction="none")
    return ((1 - torch.exp(-loss)) ** 2 * loss).mean()


def train(model, loader, optimizer):
    for batch in loader:
        batch = {name: tensor.to(DEVICE) for name, tensor in batch.items()}
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = focal_loss(model(batch["image"], batch["ink"]), batch["label"])
        loss.backward()
        optimizer.step()


model = Net().to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
federation = from_torch(model, train, digits.SITE_MOVED, optimizer, scheduler, privacy=[SecAggPlus()])
model = federation.fit(rounds=5).model

test = [{name: tensor.to(DEVICE) for name, tensor in batch.items()} for batch in digits.TEST_MOVED]
right = sum(int((model(each["image"], each["ink"]).argmax(1) == each["label"]).sum()) for each in test)
print(f"accuracy {right / len(digits.TEST_MOVED.dataset):.3f}")
