"""Suite `fl`: federated training end to end. Each command is a module; here they are gathered."""

import typer

from benchmarks.fl import overhead

app = typer.Typer(add_completion=False, help="Federated training end to end.")
overhead.register(app)


@app.callback()
def _suite() -> None:
    """Keeps the command's name in the command line while there is only one."""
