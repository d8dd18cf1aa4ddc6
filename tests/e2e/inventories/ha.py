"""The tests' own highly available lab; never that of `make up`."""

cluster = {"name": "test-ha", "machines": "lab", "api": {"vip": "auto"}}
masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
