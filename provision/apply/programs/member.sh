# Parameters: health, patience.
end=$(($(date +%s) + patience))
until sh -c "$health" 2>/dev/null; do
    [ "$(date +%s)" -lt "$end" ] || { echo 'it does not answer as a member' >&2; exit 1; }
    sleep 0.2
done
