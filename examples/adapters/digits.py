"""The data of the pairs that train networks: scikit-learn's digits, at four sites and, as it was before, in one place.

A digit is 64 intensities from 0 to 16: an image of 8 by 8, or 64 words of a language of 17.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

_PIXELS, _LABELS = load_digits(return_X_y=True)
_ORDER = np.random.default_rng(1).permutation(len(_LABELS))
_IMAGES = torch.from_numpy(_PIXELS[_ORDER]).float().reshape(-1, 1, 8, 8) / 16
_TRAIN, _TEST = range(1500), range(1500, len(_LABELS))
SITES = ("north", "south", "west", "east")


class Texts(Dataset):
    """Digits as texts, in the dicts that transformers take."""

    def __init__(self, indices):
        self.indices = indices
        self.words, self.labels = torch.from_numpy(_PIXELS[_ORDER]).long(), torch.from_numpy(_LABELS[_ORDER])

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, at):
        return {"input_ids": self.words[self.indices[at]], "labels": self.labels[self.indices[at]]}


class Moved(Dataset):
    """Digits as dicts of two inputs and a label, moved at random by up to a pixel: another image at every look."""

    def __init__(self, indices):
        self.indices = indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, at):
        image = _IMAGES[self.indices[at]]
        moved = torch.roll(image, tuple(torch.randint(-1, 2, (2,)).tolist()), dims=(1, 2))
        return {
            "image": moved,
            "ink": image.mean().reshape(1),
            "label": int(_LABELS[_ORDER][self.indices[at]]),
        }


def _loader(indices):
    images = TensorDataset(_IMAGES, torch.from_numpy(_LABELS[_ORDER]))
    return DataLoader(Subset(images, indices), batch_size=32, shuffle=True)


TEXTS, TEST_TEXTS = Texts(_TRAIN), Texts(_TEST)
SITE_TEXTS = {name: Texts(_TRAIN[at::4]) for at, name in enumerate(SITES)}
IMAGES, TEST_IMAGES = _loader(_TRAIN), _loader(_TEST)
SITE_IMAGES = {name: _loader(_TRAIN[at::4]) for at, name in enumerate(SITES)}
MOVED = DataLoader(Moved(_TRAIN), batch_size=32, shuffle=True)
SITE_MOVED = {name: DataLoader(Moved(_TRAIN[at::4]), 32, shuffle=True) for at, name in enumerate(SITES)}
TEST_MOVED = DataLoader(Moved(_TEST), batch_size=32)
