"""`yqc compare`: compiles side by side, by their reports.

`row`        one compile as a comparison holds it
`groups`     which compiles can be ranked against each other, and which no other one beats
`comparison` the comparison: tables, JSON, CSV
`reading`    reports, from files and folders, and their comparison
`page`       the comparison as an HTML page
"""

from yqc.comparing.comparison import Comparison
from yqc.comparing.page import save_page, write_page
from yqc.comparing.reading import compare, mark_namesakes, read_row
from yqc.comparing.row import ComparedRow

__all__ = [
    "ComparedRow",
    "Comparison",
    "compare",
    "mark_namesakes",
    "read_row",
    "save_page",
    "write_page",
]
