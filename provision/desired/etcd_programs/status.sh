# What this machine's member says. Sections: a line `@@ NAME`, then JSON or text.
say() { # NAME TEXT
    printf '@@ %s\n%s\n' "$1" "$2"
}
if state=$(ctl "$endpoints" endpoint status --write-out=json 2>&1); then
    say status "$state"
else
    say error "$(systemctl is-active etcd.service || true): $(printf %s "$state" | tail -n 1)"
    exit 0
fi
# Linearizable: an answer means a quorum. `endpoint health` would take an alarm for its lack.
if members=$(ctl "$endpoints" member list --write-out=json 2>&1); then
    say members "$members"
else
    say alone "$(printf %s "$members" | tail -n 1)"
    say members "$(ctl "$endpoints" member list --consistency=s --write-out=json 2>/dev/null || true)"
fi
