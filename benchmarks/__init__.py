"""Programs that measure the checkout; run as ``python -m benchmarks SUITE``. Not part of the wheel; nothing
imports them.

A suite is a package ``benchmarks/<suite>/`` whose ``__init__.py`` exposes ``app: typer.Typer`` (see
``__main__``). What suites share lives here: ``harness`` (results and timing), ``tables`` (docs pages from
results), ``plots`` (figures).
"""
