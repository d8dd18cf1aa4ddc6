# Parameters: command, patience.
end=$(($(date +%s) + patience))
while :; do
    out=$(sh -c "$command" 2>&1) && exit 0
    case $out in
    # A run that was killed did it already.
    *'not found'* | *'not a learner'*) exit 0 ;;
    # etcd answers that it is too early.
    *unhealthy* | *'not enough started'* | *'in sync'* | *'too many learner'* | *timeout* | *'leader changed'*)
        [ "$(date +%s)" -lt "$end" ] || break
        ;;
    *) break ;;
    esac
    sleep 0.3
done
echo "$out" >&2
exit 1
