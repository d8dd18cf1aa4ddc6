# What the other programs of this directory begin with. POSIX sh, coreutils, tar, zstd, etcd's own.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

fail() {
    echo "$*" >&2
    exit 1
}

ctl() { # ENDPOINT COMMAND...
    endpoint=$1
    shift
    "$bin/etcdctl" --command-timeout="$timeout" --endpoints="$endpoint" \
        --cacert="$ca" --cert="$cert" --key="$key" "$@"
}

number() { # FIELD: of JSON on stdin
    sed -n "s/.*\"$1\":\\([0-9][0-9]*\\).*/\\1/p"
}

word() { # FIELD: of JSON on stdin
    sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p"
}

room() { # DIRECTORY BYTES
    free=$(df -Pk "$1" | awk 'NR == 2 {print $4}')
    [ $((free * 1024)) -ge "$2" ] ||
        fail "no room in $1: $((free / 1024)) MiB are free, $(($2 / 1048576 + 1)) MiB are needed"
}

origin() { # where a member's data are: those from before a restore, until what it brought has run
    if [ -d "$data/before-restore" ] && { [ ! -e "$formed" ] || [ ! -d "$data/member" ]; }; then
        echo "$data/before-restore"
    else
        echo "$data/member"
    fi
}

scratch() { # DIRECTORY: $work in it, gone when the program ends
    install -d -m 0700 "$1"
    rm -rf "$1"/work.*
    work=$(mktemp -d "$1/work.XXXXXXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

restored() { # NAME DIRECTORY OPTION...: the data of $work/etcd.db, as a member of its own
    name=$1 target=$2
    shift 2
    "$bin/etcdutl" snapshot restore "$work/etcd.db" --name "$name" --data-dir "$target" "$@" \
        >"$work/log" 2>&1 || fail "etcdutl: $(tail -n 1 "$work/log")"
}

throwaway() { # NAME DIRECTORY OPTION...: an etcd of that data on loopback, until the program ends
    name=$1 target=$2
    shift 2
    timeout 600 nice "$bin/etcd" --name "$name" --data-dir "$target" \
        --listen-client-urls "$loopback" --advertise-client-urls "$loopback" \
        --listen-peer-urls "$loopback_peer" --quota-backend-bytes 17179869184 \
        --cert-file "$server_cert" --key-file "$server_key" --trusted-ca-file "$ca" \
        --client-cert-auth --peer-cert-file "$server_cert" --peer-key-file "$server_key" \
        --peer-trusted-ca-file "$ca" --peer-client-cert-auth "$@" >"$work/log" 2>&1 &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
    deadline=$(($(date +%s) + 120))
    until ctl "$loopback" get clusterctl >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || fail "etcd ended: $(tail -n 1 "$work/log")"
        [ "$(date +%s)" -lt "$deadline" ] || fail "etcd did not get ready: $(tail -n 1 "$work/log")"
        sleep 0.2
    done
}

unpacked() { # DIRECTORY: the database on stdin, compressed, into $work/etcd.db
    command -v zstd >/dev/null || fail "zstd is missing"
    room "$1" $((size * 5 / 2))
    zstd -dqc >"$work/etcd.db" || fail "the database did not arrive whole"
    echo "$sha256  $work/etcd.db" | sha256sum --quiet -c - >/dev/null 2>&1 ||
        fail "the database did not arrive whole"
}
