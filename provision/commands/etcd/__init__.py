"""etcd's data: its state, snapshots, and the ways back from one."""
