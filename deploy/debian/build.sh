#!/bin/sh
# Makes a Debian package of a built binary: sh deploy/debian/build.sh BINARY FOLDER
# Plain dpkg-deb, for the reasons in docs/decisions/0005-debian-package.md.
set -eu

for tool in dpkg-deb dpkg-shlibdeps strip; do
    command -v "$tool" >/dev/null ||
        { echo "$tool is missing; install it: apt-get install dpkg-dev binutils" >&2; exit 1; }
done
binary=$1
folder=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
arch=$(dpkg --print-architecture)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

put() { install -D -m "$1" "$2" "$tree/$3"; }
put 755 "$binary" usr/bin/gsdk2mqtt
strip --strip-debug "$tree/usr/bin/gsdk2mqtt"
put 644 "$root/deploy/systemd/gsdk2mqtt.service" lib/systemd/system/gsdk2mqtt.service
put 640 "$here/config" etc/gsdk2mqtt/config.toml
put 644 "$root/deploy/prometheus/gsdk2mqtt.rules.yml" usr/share/doc/gsdk2mqtt/prometheus.rules.yml
put 644 "$root/deploy/mosquitto/acl" usr/share/doc/gsdk2mqtt/mosquitto.acl
put 644 "$root/README.md" usr/share/doc/gsdk2mqtt/README.md
cat "$root/LICENSE-MIT" "$root/LICENSE-APACHE" >"$tree/usr/share/doc/gsdk2mqtt/copyright"
chmod 644 "$tree/usr/share/doc/gsdk2mqtt/copyright"

mkdir -p "$tree/usr/share/bash-completion/completions"
"$binary" man --dir "$tree/usr/share/man/man1"
gzip -9n "$tree/usr/share/man/man1"/*
"$binary" completions bash >"$tree/usr/share/bash-completion/completions/gsdk2mqtt"
chmod 644 "$tree/usr/share/man/man1"/* "$tree/usr/share/bash-completion/completions/gsdk2mqtt"

mkdir "$tree/DEBIAN"
for script in postinst prerm postrm; do put 755 "$here/$script" "DEBIAN/$script"; done
echo /etc/gsdk2mqtt/config.toml >"$tree/DEBIAN/conffiles"
# The libraries it is linked with name the packages it needs.
work=$(mktemp -d)
trap 'rm -rf "$tree" "$work"' EXIT
mkdir "$work/debian"
printf 'Source: gsdk2mqtt\n\nPackage: gsdk2mqtt\nArchitecture: any\n' \
    >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O "$tree/usr/bin/gsdk2mqtt" 2>"$work/said") || {
    cat "$work/said" >&2
    echo "dpkg-shlibdeps cannot tell which packages $binary needs; see above" >&2
    exit 1
}
depends=$(echo "$depends" | sed -n 's/^shlibs:Depends=//p')
rm -r "$work"
cat >"$tree/DEBIAN/control" <<END
Package: gsdk2mqtt
Version: $version
Architecture: $arch
Maintainer: gsdk2mqtt <gsdk2mqtt@users.noreply.github.com>
Depends: $depends, adduser, ca-certificates
Section: net
Priority: optional
Installed-Size: $(du -sk "$tree" | cut -f1)
Homepage: https://github.com/gsdk2mqtt/gsdk2mqtt
Description: bridge from Suprema G-SDK gateways to MQTT and Prometheus
 Publishes which door readers connect to their gateways and disconnect, with an
 unbroken chain of events a device, and exact availability for Prometheus.
END
mkdir -p "$folder"
dpkg-deb --root-owner-group -Z"${COMPRESSION:-xz}" --build "$tree" "$folder/gsdk2mqtt_${version}_$arch.deb"
