"""Where each report lies in an artifact."""

PAGE = "reports/report.html"
"""The report for people, which is made from all others; the manifest does not list it."""
EVALUATION, EXAMPLES = "reports/eval.json", "reports/examples.json"
CURVES, PLOT = "reports/repair.csv", "reports/repair.png"
LAYERS = "reports/layers.json"
EXPORTS, EXPORTS_PAGE = "reports/export.json", "reports/export.html"
BENCH = "reports/bench.json"
