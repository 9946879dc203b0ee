"""One page of a whole run: what the range test, the study, the logger and the clipper know, in one HTML file.

In flow finished results and handlers, each asked through its public methods for numbers, pictures and words. Out flows
a file that needs no network. What must never happen: that anything here changes what it is given.
"""

from ignite_lr.report._report import run_report

__all__ = ["run_report"]
