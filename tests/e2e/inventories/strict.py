"""Two machines of a lab. strict_test.py uses them as if they were a user's own machines."""

cluster = {"name": "test-strict", "machines": "lab"}
masters = ["m1"]
workers = ["w1"]
