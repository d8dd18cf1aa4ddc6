"""One machine with only systemd, sshd and a user who may use sudo."""

cluster = {"name": "test-bare", "machines": "lab", "lab": {"image": "bare"}}
masters = ["n1"]
workers = ["n1"]
