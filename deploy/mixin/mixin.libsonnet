// Alerts, recording rules and dashboards of gsdk2mqtt, in the usual form of a monitoring mixin.
// How to use it and what can be set: docs/grafana.md.
(import 'config.libsonnet')
+ (import 'alerts.libsonnet')
+ (import 'rules.libsonnet')
+ (import 'dashboards/fleet.libsonnet')
+ (import 'dashboards/bridge.libsonnet')
