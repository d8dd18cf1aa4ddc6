rm -f ./*.laid
awk '/^@@ / { if (out) close(out); out = $2 ".laid"; next } { print >out }'
for laid in *.laid; do
    [ -s "${laid%.laid}.key" ] || { echo "the key of ${laid%.laid} is gone" >&2; exit 1; }
    sync "$laid"
    mv -fT "$laid" "${laid%.laid}.crt"
done
