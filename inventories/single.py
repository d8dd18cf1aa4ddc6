"""One machine that is master and worker, as a container on this computer."""

cluster = {
    "name": "single",
    "machines": "lab",
}

masters = ["n1"]
workers = ["n1"]
