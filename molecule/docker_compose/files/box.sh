#!/bin/sh
# An image of two megabytes, made without any registry: busybox with a web server and a client.
set -eu
root=$(mktemp -d)
mkdir "$root/bin" "$root/tmp" "$root/data"
cp "$(command -v busybox)" "$root/bin/busybox"
for name in sh cat env httpd id sleep wget; do ln -s busybox "$root/bin/$name"; done
tar -C "$root" -c . | docker import --change 'ENV PATH=/bin' - "$1"
rm -r "$root"
