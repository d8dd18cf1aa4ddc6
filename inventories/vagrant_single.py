"""One machine that is master and worker, made by Vagrant on this computer."""

cluster = {
    "name": "vagrant-single",
    "machines": "vagrant",
    "vagrant": {"memory": 3072, "cpus": 2},
}

masters = ["n1"]
workers = ["n1"]
