# How far the data of a member that does not run go.
! systemctl --quiet is-active etcd.service || fail "etcd runs"
origin=$(origin)
[ ! -f "$origin/snap/db" ] || "$bin/etcdutl" snapshot status "$origin/snap/db" --write-out=json
