"""Three masters that run everything: etcd's faults, snapshots and ways back."""

cluster = {
    "name": "test-etcd",
    "machines": "lab",
    "masters_schedulable": True,
    "addons": {"metrics_server": False, "local_path": False},
    # Small enough to be filled by a test.
    "extra_args": {"etcd": {"quota-backend-bytes": str(64 * 1024**2)}},
}
masters = ["m1", "m2", "m3"]
