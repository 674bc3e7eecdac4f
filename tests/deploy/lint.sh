#!/bin/sh
# What is deployed, checked by the programs that read it.
set -eu

bin=target/tools/venv/bin
"$bin/yamllint" -s -c deploy/yamllint.yml deploy .github repository.yaml
"$bin/zizmor" --offline --quiet --min-severity medium .github
schema() {
    name=$1
    shift
    "$bin/check-jsonschema" --quiet --builtin-schema "vendor.$name" "$@"
}
"$bin/check-jsonschema" --quiet --check-metaschema deploy/helm/gsdk2mqtt/values.schema.json
schema github-workflows .github/workflows/*.yml
schema dependabot .github/dependabot.yml
schema github-issue-config .github/ISSUE_TEMPLATE/config.yml
schema github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
schema compose-spec deploy/container/compose.yml
"$bin/hadolint" deploy/container/Containerfile deploy/home-assistant-addon/Dockerfile
# What Home Assistant's host reads the profile with; without loading it, which needs its kernel.
if command -v apparmor_parser >/dev/null; then
    apparmor_parser --skip-kernel-load --skip-cache deploy/home-assistant-addon/apparmor.txt
else
    echo "SKIPPED: the add-on's AppArmor profile (no apparmor_parser)"
fi
promtool check config deploy/prometheus/prometheus.yml >/dev/null
shellcheck .ci/run deploy/debian/p* deploy/rpm/* deploy/*/*.sh scripts/*.sh tests/*/*.sh
rules=$(sed -n 's/^ *- alert: "\(.*\)"/\1/p' deploy/prometheus/gsdk2mqtt.rules.yml)
test -n "$rules"
for rule in $rules; do
    grep -qw "$rule" deploy/prometheus/gsdk2mqtt.test.yml ||
        { echo "no test of the alert $rule" >&2; exit 1; }
    grep -qx "## $rule" docs/alerts.md ||
        { echo "docs/alerts.md does not explain the alert $rule" >&2; exit 1; }
    runbook="docs/alerts.md#$(echo "$rule" | tr '[:upper:]' '[:lower:]')\""
    grep -qF "$runbook" deploy/prometheus/gsdk2mqtt.rules.yml ||
        { echo "the alert $rule has no runbook_url" >&2; exit 1; }
done
if said=$(PATH=/nonexistent /bin/sh deploy/debian/build.sh none none 2>&1); then exit 1; fi
case $said in *"is missing; install it"*) ;; *) echo "build.sh without tools: $said" >&2; exit 1 ;; esac
