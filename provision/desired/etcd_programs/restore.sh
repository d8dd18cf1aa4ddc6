# This machine's member gets the restored data; what it had is kept beside. On stdin: the database.
# It can be killed at any line and run again.
[ -x "$bin/etcdutl" ] || fail "etcdutl is missing in $bin"
! systemctl --quiet is-active etcd.service || fail "etcd runs"
getent group etcd >/dev/null || groupadd --system etcd
getent passwd etcd >/dev/null || useradd --system --gid etcd --no-create-home \
    --home-dir /nonexistent --shell /usr/sbin/nologin etcd
install -d -m 0700 -o etcd -g etcd "$data"
# On the data's own file system, for the renames.
scratch "$data/restoring"
unpacked "$data"
restored "$member" "$work/data" --initial-cluster "$initial" --initial-advertise-peer-urls "$peer_url" \
    --initial-cluster-token "$token" --bump-revision "$bump" --mark-compacted
chown -R etcd:etcd "$work/data"
# What is kept is what was there first, not what a killed run had brought; if that has run since,
# it has data that no other member has.
[ "$(origin)" = "$data/before-restore" ] || rm -rf "$data/before-restore"
sync
rm -f "$formed" "$data"/restored-*
sync
if [ -d "$data/before-restore" ]; then
    [ ! -d "$data/member" ] || mv -T "$data/member" "$work/replaced"
elif [ -d "$data/member" ]; then
    mv -T "$data/member" "$data/before-restore"
fi
mv -T "$work/data/member" "$data/member"
: >"$data/restored-$id"
sync
