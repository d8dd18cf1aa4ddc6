"""The checks of the CIS Kubernetes Benchmark 1.12, asked of running machines. Changes nothing.

`checks` is the data, `probe` the question (one round trip a machine), `judge` the verdict: pure,
all three. `look` connects them.
"""
