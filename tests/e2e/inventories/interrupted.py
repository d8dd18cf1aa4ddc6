"""A lab for runs that are killed."""

cluster = {
    "name": "test-kill",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
}
masters = ["n1"]
workers = ["n1"]
