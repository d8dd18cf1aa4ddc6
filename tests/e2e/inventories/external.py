"""A master that is also a worker, and a worker. An external authority signs their certificates."""

cluster = {
    "name": "test-external",
    "machines": "lab",
    "certificates": {"authority": "external"},
    "addons": {"metrics_server": False, "local_path": False},
}

masters = ["n1"]
workers = ["n1", "n2"]
