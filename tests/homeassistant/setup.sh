#!/bin/sh
# Installs the Home Assistant that `make test-homeassistant` asks: a core with its MQTT integration,
# in a chroot of Debian trixie, which has the Python it wants. Once; about six minutes and 1.5 GB.
# Needs root and Debian or Ubuntu. HOMEASSISTANT_ROOT says where; remove that folder to be rid of it.
set -eu

version=2026.2.3
root=${HOMEASSISTANT_ROOT:-/var/tmp/gsdk2mqtt-homeassistant}
installed=$root/installed-$version

[ -e "$installed" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "a chroot of Debian is needed: run this as root on Debian or Ubuntu" >&2
    exit 1
fi
echo "installing Home Assistant $version into $root, which takes some minutes"
command -v debootstrap >/dev/null || { apt-get update -qq; apt-get install -y -qq debootstrap; }

# What an attempt that was broken off left behind is of no use.
rm -rf --one-file-system "$root"
debootstrap --variant=minbase \
    --include=ca-certificates,gcc,libc6-dev,libffi-dev,libturbojpeg0,python3-dev,python3-venv \
    trixie "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$root.log" 2>&1 ||
    { tail -20 "$root.log" >&2; exit 1; }
# Names, certificates and pip's settings are the host's: behind a proxy nothing else works.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"

# The mounts are this process's own and go with it.
export root version
unshare --mount --propagation private sh -eu <<'INSIDE' >>"$root.log" 2>&1 ||
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
pip() { chroot "$root" env -u PIP_FIND_LINKS HOME=/root /ha/bin/pip install --quiet "$@"; }
chroot "$root" python3 -m venv /ha
pip "homeassistant==$version"
# What its integrations would fetch by themselves at the first start, in the versions that it names.
constraints=$(cd "$root" && ls ha/lib/python3*/site-packages/homeassistant/package_constraints.txt)
pip --constraint "/$constraints" paho-mqtt aiohasupervisor hassil home-assistant-intents \
    aiodhcpwatcher home-assistant-frontend numpy mutagen
INSIDE
    { tail -20 "$root.log" >&2; exit 1; }
touch "$installed"
