#!/bin/sh
# The package in a fresh Debian under systemd, in a container: installed, started, killed, rebooted, upgraded,
# removed, purged. Needs root, debootstrap, systemd-container, lintian, curl, mosquitto and
# a Debian mirror.
# sh tests/deploy/package.sh BINARY SIMULATOR
# BINARY is what is packaged, built without features; SIMULATOR is a build that has `simulate`.
set -eu

binary=$1
simulate=$2
work=target/package
suite=bookworm
mirror=${MIRROR:-http://deb.debian.org/debian}
mkdir -p "$work"
if [ ! -e "$work/base.done" ]; then
    rm -rf --one-file-system "$work/base"
    debootstrap --variant=minbase --include=adduser,ca-certificates,dbus,systemd,systemd-sysv \
        "$suite" "$work/base" "$mirror" >"$work/debootstrap.log"
    touch "$work/base.done"
fi

root=$PWD/$work/root
simulator=""
broker=""
container=""
leader=""
clean() {
    # The container's first process takes all others with it.
    for process in $simulator $broker $leader; do kill -9 "$process" 2>/dev/null || true; done
    wait
    rm -rf --one-file-system "$root"
}
trap clean EXIT
trap 'exit 1' INT TERM
rm -rf --one-file-system "$root"
cp -a "$work/base" "$root"
rm -rf "$work/deb"
# Unpacked at once again, so nothing is gained by packing it small.
COMPRESSION=none sh deploy/debian/build.sh "$binary" "$work/deb"
cp "$work"/deb/*.deb "$root/srv/gsdk2mqtt.deb"
# Only here it is not compressed.
lintian --allow-root --fail-on error,warning \
    --suppress-tags uses-no-compression-for-control-tarball,uses-no-compression-for-data-tarball \
    "$work"/deb/*.deb
fail() {
    echo "package: $*" >&2
    inside journalctl --no-pager -u gsdk2mqtt 2>/dev/null | tail -n 30 >&2
    exit 1
}
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
inside() { nsenter --all --target "$leader" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
property() { inside systemctl show --property "$1" --value gsdk2mqtt; }
is() { [ "$(property "$1")" = "$2" ]; }
doors_are_connected() { is StatusText "1 gateway, 3 of 3 connected"; }
booted() { leader=$(pgrep --parent "$container") && inside systemctl is-active multi-user.target; }
# Its network is this machine's: the simulated gateway is on its loopback, and curl here reaches the service.
boot() {
    systemd-nspawn --quiet --directory "$root" --register=no --keep-unit --boot >>"$work/console.log" 2>&1 </dev/null &
    container=$!
    until_true "systemd runs" booted
}

boot

inside dpkg -i /srv/gsdk2mqtt.deb
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
for command in simulate demo; do
    code=0
    said=$(inside gsdk2mqtt "$command" --help 2>&1) || code=$?
    [ "$code" -eq 2 ] || fail "$command gave $code instead of 2"
    case $said in *"not built into this program"*) ;; *) fail "$command: $said" ;; esac
done
# What ships has no gateway: it is refused as a mistake of configuration (2), and not started again.
if inside systemctl start gsdk2mqtt 2>/dev/null; then fail "it started without a gateway"; fi
is ExecMainStatus 2 || fail "the shipped configuration gave $(property ExecMainStatus) instead of 2"
is ActiveState failed || fail "the shipped configuration is tried again"

"$simulate" simulate --listen 127.0.0.1:14000 --devices 3 --manage \
    --certs "$root/srv/gateway" >"$work/simulator.log" 2>&1 &
simulator=$!
until_true "the gateway's certificate" [ -s "$root/srv/gateway/ca.crt" ]
echo secret >"$root/root/mqtt-password"
chmod 600 "$root/root/mqtt-password"
# What init writes, its user can read. The broker is there for init only.
PATH=$PATH:/usr/sbin mosquitto -p 11884 >"$work/mosquitto.log" 2>&1 &
broker=$!
until_true "the broker" grep -q running "$work/mosquitto.log"
inside gsdk2mqtt init --yes --overwrite --gateway-name lobby --gateway-address 127.0.0.1:14000 \
    --ca-file /srv/gateway/ca.crt --mqtt-url mqtt://127.0.0.1:11884 --mqtt-username gsdk2mqtt \
    --mqtt-password-file /root/mqtt-password >"$work/init.log" 2>&1 || fail "init: $(cat "$work/init.log")"
[ "$(inside stat -c '%U:%G %a' /etc/gsdk2mqtt/config.toml)" = "root:gsdk2mqtt 640" ] ||
    fail "init changed the configuration's owner or mode"
[ "$(inside stat -c '%U:%G %a' /etc/gsdk2mqtt/mqtt-password)" = "gsdk2mqtt:gsdk2mqtt 600" ] ||
    fail "the password's owner or mode is wrong"
inside setpriv --reuid gsdk2mqtt --regid gsdk2mqtt --clear-groups gsdk2mqtt check --connect >"$work/check.log" 2>&1 ||
    fail "its user cannot use what init wrote: $(cat "$work/check.log")"
kill "$broker"
broker=""

# From here on without a broker.
cat >"$root/etc/gsdk2mqtt/config.toml" <<'END'
[mqtt]
url = "mqtt://127.0.0.1:11883"
username = "gsdk2mqtt"
password_file = "/run/credentials/gsdk2mqtt.service/mqtt-password"
[http]
listen = "127.0.0.1:19925"
[gateways.lobby]
address = "127.0.0.1:14000"
ca_file = "/etc/gsdk2mqtt/lobby-ca.crt"
END
# A credential of systemd, as docs/security.md has it; and a watchdog for a test's patience.
mkdir "$root/etc/systemd/system/gsdk2mqtt.service.d"
printf '[Service]\nLoadCredential=mqtt-password:/root/mqtt-password\nWatchdogSec=6\n' \
    >"$root/etc/systemd/system/gsdk2mqtt.service.d/test.conf"
inside systemctl daemon-reload
inside systemctl enable --now --quiet gsdk2mqtt || fail "it does not start"
until_true "three doors in the status" doors_are_connected
[ "$(inside stat -c %U "/proc/$(property MainPID)")" = gsdk2mqtt ] || fail "it does not run as its user"
curl -s http://127.0.0.1:19925/readyz >"$work/readyz"
if grep -q file_missing "$work/readyz"; then fail "it cannot read its credential: $(cat "$work/readyz")"; fi
warnings=$(inside journalctl --no-pager -u gsdk2mqtt -p warning)
case $warnings in *"cannot connect to the broker"*) ;; *) fail "no warning in the journal: $warnings" ;; esac
case $warnings in *"gateway online"*) fail "the journal's priorities are wrong: $warnings" ;; esac

inside systemctl kill --signal KILL gsdk2mqtt
until_true "it is started again after kill -9" is NRestarts 1
until_true "three doors after kill -9" doors_are_connected
inside systemctl kill --signal STOP gsdk2mqtt
until_true "the watchdog ends it where it stands still" is NRestarts 2
until_true "three doors after the watchdog" doors_are_connected

inside systemctl reboot
wait "$container" || [ $? -eq 133 ] || fail "no reboot"
boot
until_true "three doors after a reboot" doors_are_connected
said=$(inside journalctl --no-pager -b -1 -u gsdk2mqtt)
case $said in *"Failed with result 'timeout'"*) fail "it does not stop in time" ;; esac
inside journalctl --no-pager -b -u gsdk2mqtt | grep -q "chain continues" || fail "a reboot ended the chain"

# Again, as an upgrade: what people wrote stays, and the new program runs.
before=$(property MainPID)
inside dpkg -i --force-confold /srv/gsdk2mqtt.deb
grep -q 14000 "$root/etc/gsdk2mqtt/config.toml" || fail "an upgrade lost the configuration"
until_true "three doors after an upgrade" doors_are_connected
[ "$(property MainPID)" != "$before" ] || fail "an upgrade left the old program running"
# A configuration that was removed is no error, and does not come back.
mv "$root/etc/gsdk2mqtt/config.toml" "$root/root"
inside dpkg -i /srv/gsdk2mqtt.deb || fail "an upgrade needs the configuration"
[ ! -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "a removed configuration came back"
mv "$root/root/config.toml" "$root/etc/gsdk2mqtt"

inside dpkg -r gsdk2mqtt
is ActiveState active && fail "removed, and still running"
[ ! -e "$root/usr/bin/gsdk2mqtt" ] || fail "removed, and still there"
[ -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "removal took the configuration"
[ -n "$(ls "$root/var/lib/gsdk2mqtt")" ] || fail "removal took the state"
inside dpkg -i /srv/gsdk2mqtt.deb
[ "$(inside systemctl is-enabled gsdk2mqtt)" = enabled ] || fail "removed and installed, and no longer enabled"
inside dpkg -P gsdk2mqtt
[ ! -e "$root/etc/gsdk2mqtt/config.toml" ] || fail "purged, and the configuration is there"
[ ! -e "$root/var/lib/gsdk2mqtt" ] || fail "purged, and the state is there"
[ ! -L "$root/etc/systemd/system/multi-user.target.wants/gsdk2mqtt.service" ] || fail "purged, and still enabled"
left=$(inside dpkg -l gsdk2mqtt 2>/dev/null | grep '^[a-z]' | grep -v '^un' || true)
[ -z "$left" ] || fail "purged, and known: $left"
echo "package: installed, run, killed, rebooted, upgraded, removed, purged"
