#!/bin/sh
# The RPM package, installed, upgraded and erased in a folder: sh tests/deploy/rpm.sh PACKAGE
# The folder is the Debian that package.sh makes (it must have run), since no distribution with RPM can be installed from
# Debian's mirrors. Needs root and rpm.
set -eu

package=$1
root=$PWD/target/package/rpm-root
trap 'rm -rf --one-file-system "$root"' EXIT
rm -rf --one-file-system "$root"
cp -a target/package/base "$root"
fail() { echo "rpm: $*" >&2; exit 1; }
# Its requirements are names of packages that Debian does not have.
rpm() { command rpm --root "$root" --nodeps "$@"; }
is() { [ "$(chroot "$root" stat -c '%U:%G %a' "$1")" = "$2" ] || fail "owner or mode of $1"; }

rpm -i "$package"
chroot "$root" gsdk2mqtt --version
is /usr/bin/gsdk2mqtt "root:root 755"
is /etc/gsdk2mqtt/config.toml "root:gsdk2mqtt 640"
is /var/lib/gsdk2mqtt "gsdk2mqtt:gsdk2mqtt 700"
for file in lib/systemd/system/gsdk2mqtt.service share/man/man1/gsdk2mqtt.1 share/licenses/gsdk2mqtt/LICENSE-MIT \
    share/bash-completion/completions/gsdk2mqtt share/zsh/site-functions/_gsdk2mqtt; do
    [ -s "$root/usr/$file" ] || fail "no $file"
done
chroot "$root" setpriv --reuid gsdk2mqtt --regid gsdk2mqtt --clear-groups test -r /etc/gsdk2mqtt/config.toml ||
    fail "its user cannot read its configuration"
echo "# mine" >>"$root/etc/gsdk2mqtt/config.toml"
rpm -U --replacepkgs "$package"
grep -q "# mine" "$root/etc/gsdk2mqtt/config.toml" || fail "an upgrade replaced the configuration"
rpm -e gsdk2mqtt
[ ! -e "$root/usr/bin/gsdk2mqtt" ] || fail "erased, and still there"
[ -e "$root/etc/gsdk2mqtt/config.toml.rpmsave" ] || fail "erasing took the configuration"
[ -d "$root/var/lib/gsdk2mqtt" ] || fail "erasing took the state"
echo "rpm: installed, upgraded, erased"
