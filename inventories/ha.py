"""Three masters and two workers, as containers on this computer: any master may die."""

cluster = {
    "name": "ha",
    "machines": "lab",
    "api": {"vip": "auto"},
}

masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
