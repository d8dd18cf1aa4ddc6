# Restore a database into a throw-away etcd here, and say what it has. On stdin: the database.
scratch "$state/verify"
unpacked "$work"
restored verify "$work/data" --initial-cluster "verify=$loopback_peer" \
    --initial-advertise-peer-urls "$loopback_peer" --initial-cluster-token verify
throwaway verify "$work/data" --initial-cluster "verify=$loopback_peer" \
    --initial-advertise-peer-urls "$loopback_peer"
timeout=60s
ctl "$loopback" get '' --from-key --count-only --write-out=fields |
    sed -n 's/^"Count" : /keys /p; s/^"Revision" : /revision /p'
"$bin/etcdutl" snapshot status "$work/etcd.db" --write-out=json | sed 's/^/status /'
