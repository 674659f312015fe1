"""An image out of one client's update: the exact inversion of a first linear layer, and what each layer
leaves of it.

python examples/attacks/gradient_inversion.py

A linear layer y = W x + b that saw one example has the gradients dL/dW = g x^T and dL/db = g, so a row of
the one divided by the entry of the other is x itself (Phong et al., IEEE TIFS 2018, section 3; Geiping et
al., NeurIPS 2020, proposition 3.1). One step of SGD on one example sends just these gradients, times the
learning rate.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fl import Federation
from fl.computation import LocalComputation
from fl.data import load
from fl.engines.memory import MemoryEngine
from fl.round import new_session
from protocols.kernel import SERVER, Message

CLIENTS, RATE = 10, 0.5
Image = NDArray[np.float64]


def small_model() -> nn.Module:
    """A classifier of 8x8 digits whose first layer is linear."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sigmoid(), nn.Linear(32, 10))


def federation(privacy: list[Any]) -> tuple[Federation, list[Image]]:
    """Ten clients with one digit each, one step of SGD per round; and the digits."""
    data = load("digits")
    x, y = torch.from_numpy(data.x_train[:CLIENTS]), torch.from_numpy(data.y_train[:CLIENTS])
    loaders = {f"client-{i}": DataLoader(TensorDataset(x[i : i + 1], y[i : i + 1])) for i in range(CLIENTS)}
    made = Federation(
        small_model,
        loaders,
        privacy=privacy,
        learning_rate=RATE,
        weight_cap=1,
        metrics=(),
        range=1.0,
        bits=24,
    )
    made.coordinator.prepare(1)
    return made, [np.asarray(image, np.float64).reshape(8, 8) for image in x]


def invert(difference: NDArray[np.float64]) -> Image:
    """Return the example behind a difference of the first layer: its weights are first, then its bias."""
    weights, bias = difference[: 32 * 64].reshape(32, 64), difference[32 * 64 : 33 * 64][:32]
    row = int(np.abs(bias).argmax())
    return (weights[row] / (bias[row] or 1e-300)).reshape(8, 8)


def likeness(guess: Image, truth: Image) -> float:
    """Absolute correlation of two images; 1 is the image itself."""
    if not np.isfinite(guess).all() or guess.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(guess.ravel(), truth.ravel())[0, 1]))


def update_received(privacy: list[Any]) -> tuple[NDArray[np.float64], list[Image]]:
    """What the server can read as client 0's difference out of the message that brought it."""
    made, images = federation(privacy)
    shown = made.coordinator.open(1, made.setup.names)
    caught: list[Message] = []

    def observe(message: Message) -> None:
        if message.recipient == SERVER and message.sender == ("client", 0) and "input" in message.stage:
            caught.append(message)

    protocol = made.setup.stack.secure_sum
    session = new_session(protocol, shown)
    engine = MemoryEngine(protocol, LocalComputation(made.setup, made.coordinator.model))
    engine.observe = observe
    engine.sum(shown, session, lambda _: None)
    hooks = protocol.audit_hooks
    if hooks.elements is not None:
        elements = hooks.elements(session, caught[0])
        modulus = hooks.modulus(session) if hooks.modulus is not None else 0
        assert elements is not None
        integers = ((elements.astype(np.int64) + modulus // 2) % modulus) - modulus // 2
    elif protocol.name == "none":
        from protocols.plain import PlainInput

        integers = PlainInput.decode(caught[0].body).vector
    else:  # a ciphertext: its bytes are all there is to read
        raw = np.frombuffer(caught[0].body, np.uint8)[: 4 * (shown.plan.dimension)]
        integers = np.resize(raw, 4 * shown.plan.dimension).view(np.int32).astype(np.int64)
    return integers[: shown.plan.summed.dimension].astype(np.float64), images


def sum_released(privacy: list[Any]) -> tuple[NDArray[np.float64], list[Image]]:
    """What everybody sees after the round: the model's movement."""
    made, images = federation(privacy)
    before = parameters(made.coordinator.model)
    made.fit(1)
    return parameters(made.coordinator.model) - before, images


def private_update(privacy: list[Any]) -> tuple[NDArray[np.float64], list[Image]]:
    """What a client with its own noise sends, in clear."""
    made, images = federation(privacy)
    shown = made.coordinator.open(1, made.setup.names)
    own = shown.own(made.setup.names[0])
    train = LocalComputation(made.setup, made.coordinator.model)
    vector = shown.plan.encode(train(shown, own), own)
    return vector[: made.coordinator.schema.dimension].astype(np.float64), images


def parameters(model: Any) -> NDArray[np.float64]:
    return np.concatenate([t.detach().double().numpy().ravel() for t in model.state_dict().values()])


def main() -> None:
    """Print how much of client 0's image is left behind each layer."""
    from secagg import SecAggPlus

    for name, (difference, images) in {
        "the update in clear": update_received([]),
        "the update behind masks": update_received([SecAggPlus()]),
        "the sum of ten updates": sum_released([SecAggPlus()]),
    }.items():
        print(f"{name:28} likeness {likeness(invert(difference), images[0]):.3f}")


if __name__ == "__main__":
    main()
