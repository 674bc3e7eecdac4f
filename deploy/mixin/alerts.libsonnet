// The alerts. What each means and what to do: docs/alerts.md.
{
  local c = $._config,
  local metric(name, labels='') =
    '%s{%s}' % [name, std.join(', ', std.filter(function(text) text != '', [c.selector, labels]))],
  local device = 'on (instance, gateway, device_id)',
  local gateway = 'on (instance, gateway)',
  local up = metric('gsdk_gateway_up'),
  // The alerts show a master as a gateway, by its name: the two cannot have the same.
  local asGateway(master) = 'label_replace(%s, "gateway", "$1", "master", "(.+)")' % master,

  // While the bridge, the master or the gateway is lost the state behind an alert is unknown. The alert then
  // stays as it was: what fired fires on, and resolves only when the state is known to be well.
  // `keep_firing_for` would end after a fixed time, and would delay every other resolution by it.
  // No annotation may use $value, which is 1 during the hold.
  local held(name, ofGateway) =
    local fired = 'ALERTS{alertname="%s", alertstate="firing"}' % name;
    local up = metric('up');
    local bridgeLost =
      '%s and on (instance) (last_over_time(%s[%s]) unless %s == 1)' % [fired, up, c.targetGoneFor, up];
    local gatewayLost = '%s and %s (%s or %s) == 0'
                        % [fired, gateway, metric('gsdk_gateway_up'), asGateway(metric('gsdk_master_up'))];
    |||
      or on (instance, gateway, master, device_id, reason) sum without (alertstate) (
        %s
      )
    ||| % std.join('\n  or ', [bridgeLost] + (if ofGateway then [gatewayLost] else [])),

  local alert(name, severity, expr, summary, description, duration=null) = {
    alert: name,
    expr: expr,
    [if duration != null then 'for']: duration,
    labels: { severity: severity },
    annotations: {
      summary: summary,
      description: description,
      runbook_url: c.runbookUrl + std.asciiLower(name),
    },
  },
  // Of a bridge: held while the bridge is lost.
  local ofBridge(name, severity, expr, summary, description, duration=null) =
    alert(name, severity, expr + held(name, false), summary, description, duration),
  // Of a gateway, a master or their devices: held while the bridge or the gateway or master is lost.
  local ofGateway(name, severity, expr, summary, description, duration=null) =
    alert(name, severity, expr + held(name, true), summary, description, duration),

  local duration(seconds) = if seconds % 60 == 0 then '%d min' % (seconds / 60) else '%d s' % seconds,
  local theDoor = '{{ $labels.name }} (device {{ $labels.device_id }} of gateway {{ $labels.gateway }})',
  local named = '* %s group_left (name) %s' % [device, metric('gsdk_device_info')],

  local bridges = [
    alert(
      'GsdkBridgeDown',
      'critical',
      '%s == 0\n' % metric('up'),
      'The bridge {{ $labels.instance }} is down: nothing is known about its doors.',
      'Prometheus cannot scrape {{ $labels.instance }}. The alerts of its doors, gateways and broker stay as they were until it is back.',
      c.bridgeDownFor,
    ),
    alert(
      'GsdkBridgeAbsent',
      'critical',
      'absent(%s)\n' % metric('up'),
      'Prometheus has no gsdk2mqtt bridge to scrape: no alert of a door can fire.',
      "No target matches %s. Either the scrape job is missing, or the rules' selector does not fit it." % c.selector,
      c.bridgeDownFor,
    ),
  ],

  local devices = [
    // No `for`: gaps and restarts do not reset `since`.
    ofGateway(
      'GsdkDeviceDown',
      'warning',
      |||
        (
          %(connected)s == 0
            and %(device)s time() - %(since)s > %(seconds)d
            and %(device)s %(expected)s == 1
            and %(gateway)s %(up)s == 1
        ) %(named)s
      ||| % {
        connected: metric('gsdk_device_connected'),
        since: metric('gsdk_device_since_timestamp_seconds'),
        expected: metric('gsdk_device_expected'),
        seconds: c.deviceDownSeconds,
        device: device,
        gateway: gateway,
        up: up,
        named: named,
      },
      '{{ $labels.name }} is disconnected.',
      theDoor + ' has been disconnected for more than %s.' % duration(c.deviceDownSeconds),
    ),
    ofGateway(
      'GsdkDeviceFlapping',
      'warning',
      '(increase(%s[%s]) >= %d) %s\n' % [
        metric('gsdk_device_disconnects_total'),
        c.flappingWindow,
        c.flappingDisconnects,
        named,
      ],
      '{{ $labels.name }} disconnects again and again.',
      theDoor + ' has disconnected at least %d times within %s; check its cable, switch and power supply.'
                % [c.flappingDisconnects, c.flappingWindow],
    ),
    // Counts what is connected no longer, also if it has left the gateway's list and is therefore not
    // expected. Not while a gateway or the bridge has just returned: while it was lost, all counted as
    // unknown.
    ofGateway(
      'GsdkManyDevicesLost',
      'critical',
      |||
        sum without (connected) ((%(connected)s offset %(window)s - %(connected)s) >= %(devices)d)
          / sum without (connected) (%(all)s offset %(window)s) > %(share)g
          and %(gateway)s min_over_time(%(up)s[%(window)s]) == 1
      ||| % {
        connected: metric('gsdk_gateway_devices', 'connected="true"'),
        all: metric('gsdk_gateway_devices'),
        window: c.lostWindow,
        devices: c.lostDevices,
        share: c.lostShare,
        gateway: gateway,
        up: up,
      },
      'Gateway {{ $labels.gateway }} lost many devices at once.',
      'At least %d devices, and more than %g %% of those of gateway {{ $labels.gateway }}, disconnected or left its list within %s; check what they share: a switch, a power supply, or a restart of the gateway, which forgets devices that are not declared.'
      % [c.lostDevices, 100 * c.lostShare, c.lostWindow],
    ),
  ],

  local gateways = [
    ofBridge(
      'GsdkMasterUnreachable',
      'critical',
      '%s == 0\n' % metric('gsdk_master_up'),
      'Master {{ $labels.master }} is unreachable: the state of the doors behind it is unknown.',
      'The bridge has no connection to master {{ $labels.master }}; its info topic says why (last_error). The alerts of the doors behind it stay as they were until it is back.',
      c.gatewayUnreachableFor,
    ),
    // With the name of its master, whose alert inhibits this one.
    ofBridge(
      'GsdkGatewayUnreachable',
      'critical',
      |||
        (%s == 0) * %s group_left (master) %s
          or %s %s == 0
      ||| % [up, gateway, metric('gsdk_gateway_info'), gateway, up],
      'Gateway {{ $labels.gateway }} is unreachable: the state of its doors is unknown.',
      "The bridge has no connection to gateway {{ $labels.gateway }}; its info topic says why (last_error). The alerts of its doors stay as they were until it is back.",
      c.gatewayUnreachableFor,
    ),
    ofGateway(
      'GsdkViewStale',
      'warning',
      |||
        time() - %s > %s 2 * %s + %d
          and %s %s == 1
      ||| % [
        metric('gsdk_gateway_last_list_timestamp_seconds'),
        gateway,
        metric('gsdk_gateway_audit_interval_seconds'),
        c.listOverdueSeconds,
        gateway,
        up,
      ],
      "The device list of gateway {{ $labels.gateway }} has not been read for too long.",
      'Two audits of gateway {{ $labels.gateway }} are overdue by more than %s, so a change that its stream lost is not found.'
      % duration(c.listOverdueSeconds),
    ),
    ofGateway(
      'GsdkCorrectionsRising',
      'warning',
      'increase(%s[%s]) > %d\n' % [metric('gsdk_corrections_total'), c.correctionsWindow, c.corrections],
      'The status stream of gateway {{ $labels.gateway }} loses changes.',
      'Audits of gateway {{ $labels.gateway }} found more than %d changes within %s that its stream had not delivered; raise queue_size, or check the gateway.'
      % [c.corrections, c.correctionsWindow],
    ),
    ofGateway(
      'GsdkClockSkew',
      'warning',
      'abs(%s) > %d\n' % [metric('gsdk_gateway_clock_skew_seconds'), c.clockSkewSeconds],
      'The clock of gateway {{ $labels.gateway }} is wrong.',
      "The clock of gateway {{ $labels.gateway }} is off by more than %s, and so is the timestamp of each of its events."
      % duration(c.clockSkewSeconds),
      c.clockSkewFor,
    ),
    ofGateway(
      'GsdkCertificateEnds',
      'warning',
      '(%s or %s) - time() < %d * 86400\n'
      % [
        metric('gsdk_gateway_certificate_expiry_timestamp_seconds'),
        asGateway(metric('gsdk_master_certificate_expiry_timestamp_seconds')),
        c.certificateDays,
      ],
      'The certificate of gateway {{ $labels.gateway }} expires soon.',
      'The certificate of gateway {{ $labels.gateway }} expires within %d days, or has expired; create a new one on the gateway.'
      % c.certificateDays,
    ),
  ],

  local broker = [
    ofBridge(
      'GsdkBrokerDown',
      'critical',
      '%s == 0\n' % metric('gsdk_mqtt_connected'),
      'The bridge {{ $labels.instance }} is not connected to its MQTT broker.',
      'Events wait in the outbox of {{ $labels.instance }}; /readyz says why.',
      c.brokerDownFor,
    ),
    ofBridge(
      'GsdkOutboxFilling',
      'warning',
      '%s > %d\n' % [metric('gsdk_outbox_events'), c.outboxEvents],
      'Many events of the bridge {{ $labels.instance }} wait for the broker.',
      'More than %d events wait in the outbox of {{ $labels.instance }}; the broker is away or too slow.'
      % c.outboxEvents,
      c.outboxFor,
    ),
    ofBridge(
      'GsdkEventsLost',
      'critical',
      'increase(%s[10m]) > 0\n' % metric('gsdk_outbox_dropped_total'),
      'The bridge {{ $labels.instance }} dropped events.',
      'Events of {{ $labels.instance }} were lost: its outbox was full, or the broker refused them; the next event of each device has the number of its own (lost).',
    ),
    ofBridge(
      'GsdkStoreFailed',
      'critical',
      '%s == 0\n' % metric('gsdk_store_ok'),
      'The bridge {{ $labels.instance }} cannot write its state_dir.',
      'Events of {{ $labels.instance }} are kept in memory only and are lost if it stops; /readyz says why.',
    ),
    // A failed store has its own alert.
    ofBridge(
      'GsdkDegraded',
      'warning',
      '%s == 1\n' % metric('gsdk_degraded', 'reason!="store_in_memory"'),
      'The bridge {{ $labels.instance }} is degraded: {{ $labels.reason }}.',
      'The bridge {{ $labels.instance }} runs, but not everything reaches its destination ({{ $labels.reason }}); /readyz has the details.',
      c.degradedFor,
    ),
  ],

  prometheusAlerts+:: {
    groups+: [{ name: 'gsdk2mqtt', rules: bridges + devices + gateways + broker }],
  },
}
