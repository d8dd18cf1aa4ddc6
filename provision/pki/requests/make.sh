command -v openssl >/dev/null || { echo 'openssl is missing: install it' >&2; exit 1; }

show() { # NAME
    echo "@@ $1"
    cat "$1.csr"
}

request() { # NAME CONFIGURATION
    printf '%s\n' "$2" >"$1.new"
    if ! cmp -s "$1.new" "$1.cnf" || ! [ -s "$1.key" ] || ! [ -s "$1.csr" ]; then
        rm -f "$1.cnf" "$1.csr" "$1.crt" "$1.key"
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null
        openssl req -new -config "$1.new" -key "$1.key" -out "$1.csr"
        sync "$1.key" "$1.csr"
    fi
    mv -fT "$1.new" "$1.cnf"
    show "$1"
}

