# Units start, and are waited for.
systemctl reset-failed $units 2>/dev/null || true
# etcd is ready only when others are: no waiting here.
systemctl start --no-block $units
deadline=$(($(date +%s) + 180))
until sh -c "$health" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || {
        echo "not healthy after 180 s" >&2
        for unit in $units; do
            journalctl -u "$unit" -n 8 --no-pager -o cat >&2
        done
        exit 1
    }
    sleep 0.5
done
