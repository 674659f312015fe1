"""A model of text, character by character. What does not belong here: training, alphabets."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Recurrent(nn.Module):
    """An embedding of characters, one layer of gated recurrent units and a linear map to a logit per character."""

    def __init__(self, characters: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, min(characters, hidden))
        self.recurrent = nn.GRU(self.embedding.embedding_dim, hidden, batch_first=True)
        self.head = nn.Linear(hidden, characters)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits [n, characters, length] for the numbers [n, length] of characters, as floats or integers."""
        states, _ = self.recurrent(self.embedding(inputs.long()))
        logits: torch.Tensor = self.head(states).transpose(1, 2)
        return logits

    @torch.no_grad()
    def write(
        self, begun: Sequence[int], characters: int, temperature: float = 1.0, seed: int = 0
    ) -> list[int]:
        """Return so many characters that follow those of `begun` (>= 1), drawn from the model's own distribution.

        temperature: > 0; below 1 what is likely is taken more often. seed: of the draw.
        """
        drawn, state = torch.Generator().manual_seed(seed), None
        text: list[int] = list(begun)
        new: Any = torch.tensor([text])
        for _ in range(characters):
            states, state = self.recurrent(self.embedding(new), state)
            shares = (self.head(states[:, -1]) / temperature).softmax(-1)
            new = torch.multinomial(shares, 1, generator=drawn)
            text.append(int(new))
        return text[len(begun) :]
