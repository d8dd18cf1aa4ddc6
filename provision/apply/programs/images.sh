# Parameters: storage, images. Prints a tar of these images, as a registry stores them.
cd "$storage" || exit 1
for image in $images; do
    home=repositories/${image%:*}
    # The tag comes last: when it exists, all its files exist.
    echo "2 $home/_manifests/tags/${image##*:}"
    for place in _layers _manifests/revisions; do
        echo "1 $home/$place"
        for hash in $(find "$home/$place" -name link | sed 's,/link$,,; s,.*/,,'); do
            blob=blobs/sha256/$(printf %.2s "$hash")/$hash/data
            # The registry also has links of layers that it does not need.
            [ ! -e "$blob" ] || echo "0 $blob"
        done
    done
done | LC_ALL=C sort -u | sed 's/^. //' | tar -cf - -T -
