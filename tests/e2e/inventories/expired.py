"""A cluster that is switched off until its certificates, also the kubelet's own, have expired."""

cluster = {
    "name": "test-expired",
    "machines": "lab",
    "addons": {"metrics_server": False, "local_path": False},
    "certificates": {"leaf_days": 4 / (24 * 60)},
}
masters = ["n1"]
