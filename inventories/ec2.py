"""Three masters in three zones and two workers on EC2, with everything around them.

    clusterctl plan inventories/ec2.py      # what would be made, and what it costs a month
    clusterctl up inventories/ec2.py

Credentials are those of the aws command: a profile, environment variables, single sign-on.
All fields: docs/inventory.md. What is made, and the rights it takes: docs/ec2.md.
"""

cluster = {
    "name": "ec2",
    "machines": "ec2",
    "ec2": {
        "region": "eu-central-1",
        "zones": ["eu-central-1a", "eu-central-1b", "eu-central-1c"],
        "owner": "platform@example.org",
        # This computer's address; and who may use the API.
        "ssh_from": ["203.0.113.7/32"],
        "api_from": ["203.0.113.0/24"],
        # "image": "ubuntu-24.04",
        # "master_type": "t3.medium",
        # "worker_type": "m7g.large",
        # Further workers, which join by themselves: clusterctl ec2 scale changes how many.
        # "group": 3,
        # "spot": True,
        # Through the Session Manager, with no port open, and an image that has its agent:
        # "ssh": "ssm",
    },
}

masters = ["m1", "m2", "m3"]
workers = ["w1", "w2"]
