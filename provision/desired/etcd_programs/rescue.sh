# What a member without a quorum still has, as a snapshot; its own data are only copied.
[ -x "$bin/etcd" ] && [ -x "$bin/etcdutl" ] || fail "etcd and etcdutl are missing in $bin"
! systemctl --quiet is-active etcd.service || fail "etcd runs"
origin=$(origin)
[ -d "$origin" ] || fail "there are no etcd data in $data"
scratch "$data/restoring"
room "$data" $(($(du -sk "$origin" | cut -f 1) * 1024 * 3))
install -d -m 0700 "$work/data"
cp -a "$origin" "$work/data/member"
# One member alone: it takes what it knows to be agreed upon, and drops what it does not.
throwaway "$machine" "$work/data" --force-new-cluster
endpoints=$loopback
cat >"$work/inventory.py"
