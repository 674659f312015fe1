"""Small models to start with: factories that return a torch module for an input shape and a number of classes.

Belongs here: architectures without batch statistics, so that every layer, differential privacy included, can train
them. Initialisation follows torch's generator, which the federation seeds. A user's own factory may take
`input_shape` and `classes`, or nothing.
"""

import math
from typing import TYPE_CHECKING

from protocols.errors import Misuse
from protocols.extras import needs

if TYPE_CHECKING:
    from torch import nn


def logistic(input_shape: tuple[int, ...], classes: int) -> "nn.Module":
    """One linear map from the flattened example to the classes' logits. Raises MissingExtra without torch."""
    with needs("torch", "The model logistic"):
        from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))


def mlp(input_shape: tuple[int, ...], classes: int, hidden: int = 64) -> "nn.Module":
    """One hidden layer of `hidden` rectified units. Raises MissingExtra without torch, Misuse for hidden < 1."""
    with needs("torch", "The model mlp"):
        from torch import nn
    _positive("mlp", "hidden", hidden)
    inputs = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def cnn(input_shape: tuple[int, ...], classes: int, width: int = 16, hidden: int = 64) -> "nn.Module":
    """Two convolutions (3x3, `width` and twice as many channels), each with 2x2 pooling, and a hidden layer.

    The input is an image (channels, height, width) of at least 4x4 pixels; Misuse otherwise. Raises MissingExtra
    without torch. 28x28 pixels and 10 classes make 105,866 parameters.
    """
    with needs("torch", "The model cnn"):
        from torch import nn
    _positive("cnn", "width", width)
    _positive("cnn", "hidden", hidden)
    if len(input_shape) != 3 or min(input_shape[1:]) < 4:
        raise Misuse(
            f"The model cnn takes images of shape (channels, height, width) from 4x4 pixels; the examples have the "
            f"shape {tuple(input_shape)}. Take the model mlp or logistic."
        )
    channels, height, breadth = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (height // 4) * (breadth // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def gru(input_shape: tuple[int, ...], classes: int, hidden: int = 128) -> "nn.Module":
    """One layer of `hidden` gated recurrent units over a text: a logit per class for what follows every character.

    The input holds characters' numbers, [n, length]; the output is [n, classes, length], as `cross_entropy` takes it.
    Raises MissingExtra without torch, Misuse for hidden < 1 or examples that are no windows of text.
    """
    with needs("torch", "The model gru"):
        from fl.recurrent import Recurrent
    _positive("gru", "hidden", hidden)
    if len(input_shape) != 1:
        raise Misuse(
            f"The model gru takes windows of text, of shape (length,); these are {tuple(input_shape)}."
        )
    return Recurrent(classes, hidden)


def _positive(model: str, option: str, value: int) -> None:
    if value < 1:
        raise Misuse(f"The model {model} needs {option} >= 1; it is {value}.")
