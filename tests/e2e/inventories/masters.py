"""Three masters that are also workers, without add-ons, for killed runs and lost masters."""

cluster = {
    "name": "test-masters",
    "machines": "lab",
    "api": {"vip": "auto"},
    "masters_schedulable": True,
    "addons": {"metrics_server": False, "local_path": False},
}
masters = ["m1", "m2", "m3"]
