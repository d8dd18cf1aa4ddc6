"""The checks of the CIS Kubernetes Benchmark 1.12 on running machines. Changes nothing.

`checks` reads the table checks.yaml, `probe` makes the program for a machine (one round trip each)
and reads its answer, `judge` gives the verdicts: all three are pure. `look` connects them.
"""
