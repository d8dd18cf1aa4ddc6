"""The drill: cause the faults that a cluster must survive, in a lab with the same inventory.

Two writers create objects at 10 Hz from outside the cluster: one through the API's address, one
through a node's own proxy. Afterwards the drill looks for every acknowledged write on every etcd
member.
"""
