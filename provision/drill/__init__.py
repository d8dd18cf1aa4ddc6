"""The drill: the faults that a cluster must survive, let happen to a lab made like yours.

A writer creates objects at 10 Hz, from outside, by the address that people use and by a node's
own proxy; every write that was acknowledged is looked for afterwards, on every etcd member.
"""
