#!/bin/sh
# The package in a fresh Debian, in a chroot: installed, started, upgraded, removed, purged.
# Needs root, debootstrap, lintian and a Debian mirror. sh tests/deploy/package.sh BINARY SIMULATOR
# BINARY is what is packaged, built without features; SIMULATOR is a build that has `simulate`.
set -eu

binary=$1
simulate=$2
work=target/package
suite=bookworm
mirror=${MIRROR:-http://deb.debian.org/debian}
mkdir -p "$work"
if [ ! -e "$work/base.done" ]; then
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=adduser,ca-certificates "$suite" "$work/base" "$mirror" \
        >"$work/debootstrap.log"
    touch "$work/base.done"
fi

root=$PWD/$work/root
simulator=""
service=""
clean() {
    for process in $service $simulator; do kill "$process" 2>/dev/null || true; done
    umount "$root/proc" 2>/dev/null || true
    rm -rf "$root"
}
trap clean EXIT
trap 'exit 1' INT TERM
rm -rf "$root"
cp -a "$work/base" "$root"
mount -t proc proc "$root/proc"
rm -rf "$work/deb"
# Unpacked at once again, so nothing is gained by packing it small.
COMPRESSION=none sh deploy/debian/build.sh "$binary" "$work/deb"
cp "$work"/deb/*.deb "$root/root/gsdk2mqtt.deb"
# Only here it is not compressed.
lintian --allow-root --fail-on error,warning \
    --suppress-tags uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball \
    "$work"/deb/*.deb
inside() { chroot "$root" env PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
fail() { echo "package: $*" >&2; exit 1; }
# A try a fifth of a second, for a minute and more: the machine may be busy.
until_true() {
    what=$1
    shift
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 400 ] || fail "not in time: $what"
        sleep 0.2
    done
}

inside dpkg -i /root/gsdk2mqtt.deb
inside getent passwd gsdk2mqtt >/dev/null || fail "no user"
[ -f "$root/usr/lib/systemd/system/gsdk2mqtt.service" ] || fail "no unit"
[ "$(inside stat -c '%U:%G %a' /etc/gsdk2mqtt/config.toml)" = "root:gsdk2mqtt 640" ] ||
    fail "the configuration's owner or mode is wrong"
for file in man/man1/gsdk2mqtt.1.gz bash-completion/completions/gsdk2mqtt \
    fish/vendor_completions.d/gsdk2mqtt.fish zsh/vendor-completions/_gsdk2mqtt; do
    [ -s "$root/usr/share/$file" ] || fail "no $file"
done
[ "$(inside stat -c '%U:%G %a' /var/lib/gsdk2mqtt)" = "gsdk2mqtt:gsdk2mqtt 700" ] ||
    fail "the state folder's owner or mode is wrong"
inside gsdk2mqtt --version

# As systemd would: its user, its state directory; a simulated gateway beside it.
as_user() { inside setpriv --reuid gsdk2mqtt --regid gsdk2mqtt --clear-groups "$@"; }
# What ships has no gateway: it is refused as a mistake of configuration (2), not a fault.
code=0
as_user gsdk2mqtt check >/dev/null 2>&1 || code=$?
[ "$code" -eq 2 ] || fail "the shipped configuration gave $code instead of 2"
for command in simulate demo; do
    code=0
    said=$(inside gsdk2mqtt "$command" --help 2>&1) || code=$?
    [ "$code" -eq 2 ] || fail "$command gave $code instead of 2"
    case $said in *"not built into this program"*) ;; *) fail "$command: $said" ;; esac
done
"$simulate" simulate --listen 127.0.0.1:14000 --devices 3 --manage \
    --certs "$root/srv/gateway" >"$work/simulator.log" 2>&1 &
simulator=$!
until_true "the gateway's certificate" [ -s "$root/srv/gateway/ca.crt" ]
install -m 644 "$root/srv/gateway/ca.crt" "$root/etc/gsdk2mqtt/lobby-ca.crt"
cat >"$root/etc/gsdk2mqtt/config.toml" <<'END'
[mqtt]
url = "mqtt://127.0.0.1:11883"
[http]
listen = "127.0.0.1:19925"
[gateways.lobby]
address = "127.0.0.1:14000"
ca_file = "/etc/gsdk2mqtt/lobby-ca.crt"
END
as_user gsdk2mqtt check >/dev/null || fail "its user cannot read its configuration"
chroot "$root" setpriv --reuid gsdk2mqtt --regid gsdk2mqtt --clear-groups \
    env STATE_DIRECTORY=/var/lib/gsdk2mqtt /usr/bin/gsdk2mqtt run >"$work/service.log" 2>&1 &
service=$!
until_true "health" as_user gsdk2mqtt health
until_true "three doors" sh -c "curl -fs http://127.0.0.1:19925/metrics |
    grep -q 'gsdk_gateway_devices{gateway=\"lobby\",connected=\"true\"} 3'"
kill "$service"
wait "$service" || fail "it did not stop in order: $(tail -3 "$work/service.log")"
service=""
[ -n "$(ls "$root/var/lib/gsdk2mqtt")" ] || fail "it kept nothing"

# Again, as an upgrade: what people wrote stays.
inside dpkg -i --force-confold /root/gsdk2mqtt.deb
grep -q 14000 "$root/etc/gsdk2mqtt/config.toml" || fail "an upgrade lost the configuration"
kill "$simulator"
wait "$simulator" || true
simulator=""
# A configuration that was removed is no error, and does not come back.
mv "$root/etc/gsdk2mqtt/config.toml" "$root/root"
inside dpkg -i /root/gsdk2mqtt.deb || fail "an upgrade needs the configuration"
[ ! -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "a removed configuration came back"
mv "$root/root/config.toml" "$root/etc/gsdk2mqtt"

# As `systemctl enable` does, which is not here.
link=etc/systemd/system/multi-user.target.wants/gsdk2mqtt.service
mkdir -p "$(dirname "$root/$link")"
ln -s /usr/lib/systemd/system/gsdk2mqtt.service "$root/$link"
inside dpkg -r gsdk2mqtt
[ -L "$root/$link" ] || fail "removed, and no longer enabled for the next installation"
[ ! -e "$root/usr/bin/gsdk2mqtt" ] || fail "removed, and still there"
[ -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "removal took the configuration"
[ -n "$(ls "$root/var/lib/gsdk2mqtt")" ] || fail "removal took the state"
inside dpkg -P gsdk2mqtt
[ ! -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "purged, and the configuration is there"
[ ! -e "$root/var/lib/gsdk2mqtt" ] || fail "purged, and the state is there"
[ ! -L "$root/$link" ] || fail "purged, and still enabled"
left=$(inside dpkg -l gsdk2mqtt 2>/dev/null | grep '^[a-z]' | grep -v '^un' || true)
[ -z "$left" ] || fail "purged, and known: $left"
echo "package: installed, run, upgraded, removed, purged"
