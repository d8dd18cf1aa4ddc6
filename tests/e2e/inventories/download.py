"""A machine of a lab. download_test.py uses it as if it were a user's own machine."""

cluster = {"name": "test-download", "machines": "lab"}
masters = ["n1"]
workers = ["n1"]
