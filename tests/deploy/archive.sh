#!/bin/sh
# Unpacks an archive and runs its program, in qemu if it is for another processor: sh tests/deploy/archive.sh ARCHIVE
set -eu

archive=$1
name=$(basename "$archive" .tar.gz)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xzf "$archive" -C "$folder"
fail() { echo "archive: $*" >&2; exit 1; }
emulator=""
case $name-on-$(uname -m) in
*-aarch64-unknown-linux-*-on-aarch64 | *-apple-*) ;;
*-aarch64-unknown-linux-*) emulator=qemu-aarch64-static ;;
*-armv7-*) emulator=qemu-arm-static ;;
esac
run() { $emulator "$folder/$name/gsdk2mqtt" "$@"; }

version=$(run --version)
case $name in "gsdk2mqtt-${version#gsdk2mqtt }-"*) ;; *) fail "$name says that it is $version" ;; esac
# TLS, SQLite, MQTT and timers, with eight doors that come and go.
run demo --for 20s >"$folder/demo.log" 2>&1 || fail "the demo failed: $(cat "$folder/demo.log")"
for said in "gateway online" " connected " " disconnected "; do
    grep -q "$said" "$folder/demo.log" || fail "the demo did not say '$said': $(cat "$folder/demo.log")"
done
! grep -q "WARN\|ERROR" "$folder/demo.log" || fail "the demo warns: $(cat "$folder/demo.log")"
echo "archive: $name runs${emulator:+ in $emulator}"
