# A snapshot as a tar, compressed, on stdout. On stdin: the inventory's text, or nothing.
command -v zstd >/dev/null || fail "zstd is missing"
[ -x "$bin/etcdctl" ] && [ -x "$bin/etcdutl" ] || fail "etcdctl and etcdutl are missing in $bin"
[ -n "${work:-}" ] || {
    scratch "$state/snapshot"
    cat >"$work/inventory.py"
}

healthy=
for endpoint in $endpoints; do
    # Linearizable: who answers belongs to the quorum, and is not behind it.
    if ctl "$endpoint" get clusterctl >/dev/null 2>"$work/error"; then
        healthy=$endpoint
        break
    fi
done
[ -n "$healthy" ] || fail "no member answers: $(tail -n 1 "$work/error")"
status=$(ctl "$healthy" endpoint status --write-out=json)
room "$work" "$(printf %s "$status" | number dbSize)"
created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
timeout=600s
ctl "$healthy" snapshot save "$work/etcd.db" >/dev/null 2>"$work/error" || fail "$(cat "$work/error")"
timeout=60s
saved=$("$bin/etcdutl" snapshot status "$work/etcd.db" --write-out=json)
revision=$(printf %s "$saved" | number revision)
# At the snapshot's own revision: what is written meanwhile does not count.
keys=$(ctl "$healthy" get '' --from-key --count-only --rev="$revision" --write-out=fields |
    sed -n 's/^"Count" : //p')
fingerprint=$(awk -F '\t' '$1 == "cluster" {print $3}' "$record"/* 2>/dev/null | head -n 1)
cat >"$work/manifest.json" <<END
{
  "format": 1,
  "cluster": "$cluster",
  "fingerprint": "$fingerprint",
  "machine": "$machine",
  "created": "$created",
  "kubernetes": "$kubernetes",
  "etcd": "$(printf %s "$status" | word version)",
  "revision": $revision,
  "keys": $keys,
  "size": $(stat -c %s "$work/etcd.db"),
  "sha256": "$(sha256sum "$work/etcd.db" | cut -d ' ' -f 1)"
}
END
# An authority's key may be elsewhere: then it is not there to be read. The data come last: who
# finds them whole has everything.
# shellcheck disable=SC2086
tar -cf - --ignore-failed-read -C "$work" manifest.json inventory.py -C / $trust \
    -C "$work" etcd.db 2>/dev/null | nice zstd -q -c
