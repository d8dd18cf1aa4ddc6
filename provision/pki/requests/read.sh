# Parameter: requests.
cd "$requests" 2>/dev/null || exit 0
for request in *.csr; do
    [ -s "$request" ] || continue
    [ -s "${request%.csr}.key" ] || continue
    echo "@@ ${request%.csr}"
    cat "$request"
done
