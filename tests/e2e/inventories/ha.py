"""The highly available lab of the tests. `make up` uses another lab."""

cluster = {"name": "test-ha", "machines": "lab", "api": {"vip": "auto"}}
masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
