# Whether this machine's member has been given the restored data.
[ ! -e "$data/restored-$id" ] || echo yes
