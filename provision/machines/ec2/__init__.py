"""A cluster's machines on EC2, and what is around them.

    model.py      the things of a cluster as data: API calls with references to each other
    names.py      names and tags by which clusterctl finds the things
    desired.py    inventory -> the things that should exist; pure
    policies.py   the machines' rights in the account
    user_data.py  the configuration for a machine's first boot
    prices.py     the approximate cost
    account.py    boto3's clients; an AWS error in words
    seen.py       the things that exist, found by tags and names
    checks.py     faults, found before anything is made
    apply.py      carries steps out, in parallel if they do not depend on each other
    group.py      files for workers of the Auto Scaling group, and the number of workers
    removal.py    removes all things of a cluster, in the order that AWS demands
    source.py     the machine source, which the rest of the program uses

Things are found in the account by the tags `clusterctl:cluster` and `clusterctl:key`, so every
operator can continue. This computer has no other record of them. It only keeps data for machines
that do not exist yet, until they exist: host keys, and the zone and address of a removed machine.
"""
