"""Three masters that run everything, for etcd's faults, snapshots and restores."""

cluster = {
    "name": "test-etcd",
    "machines": "lab",
    "masters_schedulable": True,
    "addons": {"metrics_server": False, "local_path": False},
    # So small that a test can fill it.
    "extra_args": {"etcd": {"quota-backend-bytes": str(64 * 1024**2)}},
}
masters = ["m1", "m2", "m3"]
