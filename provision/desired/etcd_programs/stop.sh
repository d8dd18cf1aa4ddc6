# The control plane stops, so that data can be exchanged; the marker keeps others from starting it.
install -d -m 0755 "$state"
# Without a marker they are of a restore that was finished.
[ -e "$marker" ] || rm -rf "$data/before-restore" "$data"/restored-*
printf '%s\n' "$restoring" >"$marker.new"
sync "$marker.new"
mv -fT "$marker.new" "$marker"
for unit in $units; do
    # An apiserver whose etcd has no quorum would wait for a minute, and has nothing to say.
    timeout 10 systemctl stop "$unit" 2>/dev/null ||
        systemctl kill -s KILL "$unit" 2>/dev/null || true
    systemctl stop "$unit" 2>/dev/null || true
    ! systemctl --quiet is-active "$unit" || fail "$unit does not stop"
done
