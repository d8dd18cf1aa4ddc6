"""A master that works too, and a worker, whose certificates somebody else signs."""

cluster = {
    "name": "test-external",
    "machines": "lab",
    "certificates": {"authority": "external"},
    "addons": {"metrics_server": False, "local_path": False},
}

masters = ["n1"]
workers = ["n1", "n2"]
