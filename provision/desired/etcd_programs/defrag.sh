# Defragment this machine's member, or (compact, disarm) do what is done once for all of them.
case $action in
compact)
    timeout=300s
    revision=$(ctl "$endpoints" endpoint status --write-out=json | number revision)
    said=$(ctl "$endpoints" compaction --physical "$revision" 2>&1) ||
        case $said in
        *"has been compacted"*) ;;
        *) fail "$said" ;;
        esac
    ;;
defrag)
    timeout=600s
    ctl "$endpoints" defrag >/dev/null
    timeout=3s
    deadline=$(($(date +%s) + 120))
    until ctl "$endpoints" get clusterctl >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "the member is not back in the quorum after 120 s"
        sleep 0.2
    done
    ;;
disarm) ctl "$endpoints" alarm disarm >/dev/null ;;
esac
