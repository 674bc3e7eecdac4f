#!/bin/sh
# From a bare folder to a bridge that is ready: first_steps.sh PROGRAM. A local mosquitto and a
# simulated gateway stand in for the real ones; everything else is what docs/getting-started.md says.
set -eu

program=$(realpath "$1")
folder=$(mktemp -d)
pids=""
leave() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$folder"
}
trap leave EXIT
cd "$folder"

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
broker=$(free_port)
gateway=$(free_port)
web=$(free_port)
printf 'user root\nallow_anonymous true\nlistener %s 127.0.0.1\n' "$broker" >mosquitto.conf
PATH="$PATH:/usr/sbin" mosquitto -c mosquitto.conf >mosquitto.log 2>&1 &
pids="$pids $!"
"$program" simulate --listen "127.0.0.1:$gateway" --certs "$folder" --devices 5 --manage >gateway.log 2>&1 &
pids="$pids $!"

within_a_minute() { # within_a_minute WHAT COMMAND...
    what=$1
    shift
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "not within a minute: $what" >&2
    cat ./*.log >&2
    exit 1
}
within_a_minute "the broker and the gateway listen" \
    sh -c "test -s ca.crt && python3 -c 'import socket
for port in ($broker, $gateway): socket.create_connection((\"127.0.0.1\", port)).close()'"

"$program" init --yes --output etc/config.toml --gateway-address "127.0.0.1:$gateway" \
    --ca-file ca.crt --mqtt-url "mqtt://127.0.0.1:$broker"
set -- --config etc/config.toml --set "state_dir=$folder/state" --set "http.listen=127.0.0.1:$web"
"$program" check --connect "$@"
"$program" run "$@" >bridge.log 2>&1 &
pids="$pids $!"
within_a_minute "/readyz is 200" curl -fsS "http://127.0.0.1:$web/readyz"
echo "ready, from a bare folder"
