"""etcd on three machines of its own, two masters, a worker; as containers on this computer."""

cluster = {
    "name": "separate-etcd",
    "machines": "lab",
    "api": {"vip": "auto"},
}

etcd = ["e1", "e2", "e3"]
masters = ["m1", "m2"]
workers = ["w1"]
