"""A master and a worker that Vagrant makes as containers, which run on every computer."""

cluster = {
    "name": "test-vagrant",
    "machines": "vagrant",
    "vagrant": {"provider": "docker"},
    "addons": {"metrics_server": False, "local_path": False},
}

masters = ["m1"]
workers = ["w1"]
