"""Suite `fl`: federated training end to end. Each command is a module; here they are gathered."""

import typer

from benchmarks.fl import homomorphic, overhead

app = typer.Typer(add_completion=False, help="Federated training end to end.")
overhead.register(app)
homomorphic.register(app)
