"""A report: one HTML file about runs, sweeps, benchmarks and audits, which opens from disk without any request.

Belongs here: what is read (`folders`), what is compared (`cells`), the page (`page`) and figures as files (`figures`).
What does not: training, prices, checks of records; a report shows what they left on disk. No torch.
"""

from fl.report.page import write

__all__ = ["write"]
