rm -f ./*.signed
awk '/^@@ / { if (out) close(out); out = $2 ".signed"; next } { print >out }'
for signed in *.signed; do
    [ -s "${signed%.signed}.key" ] || { echo "the key of ${signed%.signed} is gone" >&2; exit 1; }
    sync "$signed"
    mv -fT "$signed" "${signed%.signed}.crt"
done
