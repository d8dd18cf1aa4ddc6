"""Two machines of a lab, for a cluster that takes them for anybody's: see strict_test.py."""

cluster = {"name": "test-strict", "machines": "lab"}
masters = ["m1"]
workers = ["w1"]
