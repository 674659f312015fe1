"""A torch model trained over plain HTTP: `training.py` is the page to copy, `queues.py` its transport."""
