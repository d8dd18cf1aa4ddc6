"""A cluster's machines on EC2, and what is around them.

    model.py      what there should be, as data: API calls with references to each other
    names.py      names and tags by which everything is found again
    desired.py    inventory -> what there should be; pure
    policies.py   what the machines may do
    user_data.py  what a machine is told at its first boot
    prices.py     what it costs, roughly
    account.py    boto3's clients; an AWS error in words
    seen.py       what there is, found by tags and names
    checks.py     what is wrong, before anything is made
    apply.py      carries steps out, side by side where nothing waits for another
    group.py      what workers of the Auto Scaling group are given, and how many they are
    removal.py    all that is ours, in the order in which AWS lets it go
    source.py     the source of machines that the rest of the program knows

Nothing is written down on this computer that the account does not say too: resources are found by
the tags `clusterctl:cluster` and `clusterctl:key`, so any operator can go on. What machines are to
be given that are not there yet, host keys and the place of one that was removed, is kept until then.
"""
