#!/bin/sh
# The add-on's start, as root: options become a configuration, then root is given up for good.
# The tests run it with ADDON_ROOT (where /data, /config and /tmp are), SUPERVISOR_URL and ADDON_TRIES.
set -eu
umask 077

root=${ADDON_ROOT:-}
user=65532
options=$root/data/options.json
state=$root/data/state
# In memory: config.yaml says tmpfs.
own=$root/tmp/gsdk2mqtt
here=$(dirname "$0")

fail() {
    echo "gsdk2mqtt add-on: $*" >&2
    exit 2
}
option() { jq -r --arg key "$1" '.[$key] // empty' "$options"; }
# The token by stdin and the answer into a file: arguments are for everyone to read.
ask_for_broker() {
    printf 'header = "Authorization: Bearer %s"\n' "${SUPERVISOR_TOKEN:-}" |
        curl -fsS -K - --max-time 10 "${SUPERVISOR_URL:-http://supervisor}/services/mqtt" |
        jq '.data | select(.host)' >"$own/service.json" && [ -s "$own/service.json" ]
}

[ -r "$options" ] || fail "$options cannot be read; is this run by Home Assistant's Supervisor?"
mkdir -p "$own" "$state"
file=$(option configuration)
if [ -n "$file" ]; then
    [ -f "$root/config/$file" ] || fail "configuration: there is no $file in the add-on's folder"
    cp "$root/config/$file" "$own/config.toml"
else
    echo '{}' >"$own/service.json"
    if [ -z "$(option mqtt_url)" ]; then
        # The broker's own add-on may be starting too.
        tries=0
        until ask_for_broker; do
            tries=$((tries + 1))
            [ "$tries" -lt "${ADDON_TRIES:-30}" ] ||
                fail "the Supervisor knows no broker: install Mosquitto's add-on, or set mqtt_url"
            sleep 2
        done
    fi
    jq -j --slurpfile service "$own/service.json" \
        'if (.mqtt_url // "") != "" then .mqtt_password else $service[0].password end // ""' \
        "$options" >"$own/password"
    password=""
    [ ! -s "$own/password" ] || password=$own/password
    jq -r --slurpfile service "$own/service.json" --arg files "$root/config" \
        --arg password "$password" -f "$here/options.jq" "$options" >"$own/config.toml" ||
        fail "the options cannot be used: see above"
    rm "$own/service.json"
fi
# Of the libraries only warnings: nobody has looked whether their traces hold secrets.
RUST_LOG="warn,gsdk2mqtt=$(option log_level)"
GSDK2MQTT_STATE_DIR=$state
export RUST_LOG GSDK2MQTT_STATE_DIR
unset SUPERVISOR_TOKEN HASSIO_TOKEN
chown -R "$user:$user" "$own"
chown "$user:$user" "$state"
# Files that the user's own configuration names without a folder.
cd "$root/config"
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all gsdk2mqtt run --config "$own/config.toml"
