"""One command per performance goal: `python -m benchmarks [NAME...] [--smoke] [--json FILE] [--vs FILE]`.

Benchmarks are not timed tests: CI runs them with `--smoke` only to see that they work. Figures are CPU seconds where other programs may
share the machine, and ratios between figures of one run say more than either.
"""
