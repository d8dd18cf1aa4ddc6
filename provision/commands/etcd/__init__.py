"""etcd: its members, snapshots, restore and recovery."""
