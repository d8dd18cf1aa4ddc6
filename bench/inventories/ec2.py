"""The cluster of `bench/ec2.py`. BENCH_GROUP: the number of workers in the Auto Scaling group."""

import os

cluster = {
    "name": "bench-ec2",
    "machines": "ec2",
    "ec2": {
        "region": "eu-central-1",
        "owner": "bench",
        "network": "10.79.0.0/16",
        "ssh": "private",
        "ssh_from": ["10.79.0.1/32"],
        "zones": ["eu-central-1a", "eu-central-1b", "eu-central-1c"],
        "group": int(os.environ.get("BENCH_GROUP", "0")),
        "endpoint": os.environ.get("BENCH_EC2_ENDPOINT", ""),
    },
    "networks": {"pods": "10.199.0.0/16"},
}
masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
