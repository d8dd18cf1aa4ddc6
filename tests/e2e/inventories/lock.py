"""A small lab for two operators."""

cluster = {
    "name": "test-lock",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
}
masters = ["n1"]
workers = ["n1"]
