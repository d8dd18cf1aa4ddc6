"""One machine with systemd, sshd and a user who may use sudo: nothing else is on it."""

cluster = {"name": "test-bare", "machines": "lab", "lab": {"image": "bare"}}
masters = ["n1"]
workers = ["n1"]
