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
maintainer="gsdk2mqtt <gsdk2mqtt@users.noreply.github.com>"
# The date of everything in the package: the same commit gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

put() { install -D -m "$1" "$2" "$tree/$3"; }
put 755 "$binary" usr/bin/gsdk2mqtt
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/bin/gsdk2mqtt"
put 644 "$root/deploy/systemd/gsdk2mqtt.service" usr/lib/systemd/system/gsdk2mqtt.service
put 640 "$here/config" etc/gsdk2mqtt/config.toml
put 644 "$root/deploy/prometheus/gsdk2mqtt.rules.yml" usr/share/doc/gsdk2mqtt/prometheus.rules.yml
put 644 "$root/deploy/mosquitto/acl" usr/share/doc/gsdk2mqtt/mosquitto.acl
put 644 "$root/README.md" usr/share/doc/gsdk2mqtt/README.md

doc=$tree/usr/share/doc/gsdk2mqtt
{
    cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: gsdk2mqtt
Source: https://github.com/gsdk2mqtt/gsdk2mqtt

Files: *
Copyright: $(sed -n 's/^Copyright (c) //p' "$root/LICENSE-MIT")
License: Expat or Apache-2.0

License: Apache-2.0
 On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.

License: Expat
END
    sed -e '1,/^Copyright/d' "$root/LICENSE-MIT" | sed -e '1{/^$/d;}' -e 's/^$/./' -e 's/^/ /'
} >"$doc/copyright"
# Debian's own form, which leads to the project's.
date=$(date --utc -R -d "@$SOURCE_DATE_EPOCH")
cat >"$doc/changelog" <<END
gsdk2mqtt ($version) unstable; urgency=medium

  * Release $version. What changed is in CHANGELOG.md.gz beside this file.

 -- $maintainer  $date
END
cp "$root/CHANGELOG.md" "$doc"
gzip -9n "$doc/changelog" "$doc/CHANGELOG.md"
mkdir -p "$tree/usr/share/lintian/overrides"
# It may hold a password.
echo "gsdk2mqtt: non-standard-file-perm 0640 != 0644 *etc/gsdk2mqtt/config.toml*" \
    >"$tree/usr/share/lintian/overrides/gsdk2mqtt"

"$binary" man --dir "$tree/usr/share/man/man1"
gzip -9n "$tree/usr/share/man/man1"/*
completions() {
    mkdir -p "$(dirname "$tree/usr/share/$2")"
    "$binary" completions "$1" >"$tree/usr/share/$2"
}
completions bash bash-completion/completions/gsdk2mqtt
completions fish fish/vendor_completions.d/gsdk2mqtt.fish
completions zsh zsh/vendor-completions/_gsdk2mqtt
find "$tree/usr/share" -type f -exec chmod 644 {} +
find "$tree/usr" "$tree/etc" -type d -exec chmod 755 {} +

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
Maintainer: $maintainer
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
