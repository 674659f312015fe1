"""A torch loop that nobody made a function of: a schedule by batches, clipped gradients, and a look at held-out data
after every epoch. Run with python -m from the checkout.
"""

import torch
from torch.nn import functional as F

from examples.adapters import digits

# fmt: off
model = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(576, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=5 * len(digits.IMAGES))
loader = digits.IMAGES
for epoch in range(5):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x + 0.1 * torch.randn_like(x)), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in digits.TEST_IMAGES)
    print(epoch, right / len(digits.TEST_IMAGES.dataset))
