"""One client's answer to an opening: train, take the difference, and encode it through the stack. Runs
where the client lives.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl import metrics
from fl.config import Setup
from fl.loaders import examples_in
from fl.local import fresh_model, run_epochs
from fl.rounds import CAPPED, COUNTERS, Opening, own_facts
from fl.seeds import derive, seeded
from fl.tensors import flatten_state
from protocols.errors import Misuse
from protocols.layers import Compute, Contribution, LocalTask
from protocols.roundplan import RoundPlan
from protocols.updates import Flat


def contribute(
    setup: Setup, template: Any, opening: Opening, client: str, loader: Any, store: Any = None
) -> NDArray[np.int64]:
    """Return the client's integer vector (int64 [opening.plan.dimension]), private: for its SecureSum only.

    template: a module of the federation's architecture. Raises Misuse naming the tensor for NaN or infinity.
    """
    contribution, _ = train_locally(setup, template, opening, client, loader, store)
    return opening.plan.encode(contribution, own_facts(opening, client, store))


def train_locally(
    setup: Setup, template: Any, opening: Opening, client: str, loader: Any, store: Any = None
) -> tuple[Contribution, Flat]:
    """Return the client's raw contribution (a float difference, weight, exact coordinates) and its trained
    model, flat.
    """
    plan = setup.plan
    facts = own_facts(opening, client, store)
    task = make_task(setup, template, opening, client, loader)
    compute: Compute = setup.strategy.local(lambda t: t.run(t))
    for layer in reversed(setup.stack.layers):
        compute = layer.local(compute, facts)
    with seeded(derive(plan.seed, "train", opening.number, client)):
        reported = compute(task)
    try:
        trained = _trained(task, opening)
    except Misuse as error:
        raise Misuse(f"client {client!r}, round {opening.number}: {error}") from None
    weight, capped = _weight(setup, opening.plan, task.examples)
    exact = metrics.encode(reported, plan.metrics, weight)
    exact[CAPPED] = np.array([capped], np.int64)
    exact[COUNTERS] = trained.counters - opening.reference.counters
    kept = {c.name for c in opening.plan.summed.coordinates}
    coordinates = {name: block for name, block in exact.items() if name in kept}
    difference = trained.vector - opening.reference.vector
    return Contribution(difference, weight, coordinates), trained


def make_task(setup: Setup, template: Any, opening: Opening, client: str, loader: Any) -> LocalTask:
    """Return what the client's computation starts from: a fresh copy of the broadcast model, optimizer and
    criterion.
    """
    plan = setup.plan
    own_generator = getattr(loader, "generator", None)
    if own_generator is not None:  # its state would depend on how often it was asked before
        own_generator.manual_seed(derive(plan.seed, "order", opening.number, client))
    model = fresh_model(template, opening.state, plan.device)
    return LocalTask(
        client=client,
        model=model,
        loader=loader,
        optimizer=setup.optimizer(model.parameters()),
        criterion=setup.criterion(),
        run=run_epochs(setup.train, opening.number),
        epochs=plan.local_epochs,
        loss=setup.loss,
        examples=examples_in(loader),
        device=plan.device,
    )


def _trained(task: LocalTask, opening: Opening) -> Flat:
    """Return the trained model, flat; or the reference plus the result that a layer computed by itself."""
    if task.result is None:
        state = task.model.state_dict()
        extra, missing = state.keys() - opening.state.keys(), opening.state.keys() - state.keys()
        if extra or missing:
            raise Misuse(
                f"training changed the model's names: {sorted(extra)} appeared, {sorted(missing)} are gone"
            )
        return flatten_state({name: state[name] for name in opening.state}, opening.schema)
    reference = opening.reference
    vector = reference.vector.copy()
    at = 0
    for leaf in opening.schema.leaves:
        if leaf.rule == "protect":
            if leaf.name in task.result:
                vector[at : at + leaf.floats] += np.asarray(task.result[leaf.name], np.float64).reshape(-1)
            at += leaf.floats
    if not np.isfinite(vector).all():
        name = opening.schema.name_at(int(np.flatnonzero(~np.isfinite(vector))[0]))
        raise Misuse(f"{name}: holds NaN or infinity; the update is refused")
    return Flat(vector, reference.counters, reference.kept)


def _weight(setup: Setup, plan: RoundPlan, examples: int) -> tuple[int, int]:
    """Return (integer weight within the public cap, 1 if it had to be capped)."""
    cap = plan.signals[0].weight_cap
    if cap == 1 or not setup.strategy.weighted or plan.summed.weight_cap == 1:
        return 1, 0
    return min(examples, cap), int(examples > cap)
