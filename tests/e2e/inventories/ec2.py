"""A master, a worker and a group of one on EC2, for which moto and the lab stand in: ec2_lab.py."""

import hashlib
import os

# Each checkout has its own networks, as in the lab.
_number = int(hashlib.sha256(__file__.encode()).hexdigest(), 16)

cluster = {
    "name": "test-ec2",
    "machines": "ec2",
    "ec2": {
        "region": "eu-central-1",
        "zones": ["eu-central-1a"],
        "owner": "tests",
        "network": f"10.78.{_number % 256}.0/24",
        "ssh": "private",
        "group": 1,
        "ssh_from": [f"10.78.{_number % 256}.1/32"],
        "endpoint": os.environ.get("TEST_EC2_ENDPOINT", ""),
    },
    "state": "s3://shared/clusters",
    "networks": {"pods": f"10.{160 + _number % 32}.0.0/16"},
}

masters = ["m1"]
workers = ["w1"]
