// Dashboard of the bridge itself: broker, outbox, store, links to the gateways, process.
local p = import 'panels.libsonnet';

{
  local c = $._config,
  local bridges = c.selector + ', instance=~"$instance"',
  local metric(name) = '%s{%s}' % [name, bridges],
  local rate(name, by) = 'sum by (%s) (rate(%s[$__rate_interval]))' % [by, metric(name)],
  local quantile(q, name, by) = 'histogram_quantile(%g, %s)' % [q, rate(name + '_bucket', by)],
  local lines(title, expr, legend, unit='short', description='', min=0) =
    p.lines(title, [[expr, legend]], unit, description, min),

  local now = [
    p.row('Now'),
    p.bridgeUp(bridges),
    p.flag('Broker', 'min(%s)' % metric('gsdk_mqtt_connected'), 'connected', 'NOT CONNECTED'),
    p.flag('Gateways', 'min(%s)' % metric('gsdk_gateway_up'), 'all online', 'LOST', 'Lost: at least one.'),
    p.flag(
      'Store',
      'min(%s)' % metric('gsdk_store_ok'),
      'written',
      'NOT WRITTEN',
      'While it is not written, events are kept in memory only.'
    ),
    p.number(
      'Events waiting',
      'sum(%s)' % metric('gsdk_outbox_events'),
      [[0, 'green'], [c.outboxEvents, 'orange']]
    ),
    p.number(
      'Events dropped',
      'sum(%s)' % metric('gsdk_outbox_dropped_total'),
      [[0, 'green'], [1, 'red']],
      'By a full outbox, since the bridge started.'
    ),
    p.number(
      'First certificate to expire',
      'min(%s or %s) * 1000' % [
        metric('gsdk_gateway_certificate_expiry_timestamp_seconds'),
        metric('gsdk_master_certificate_expiry_timestamp_seconds'),
      ],
      [],
      'Of the gateways and masters.',
      unit='dateTimeFromNow'
    ),
    p.table(
      'Degraded',
      '%s == 1' % metric('gsdk_degraded') + p.noData(bridges, 'reason'),
      [['reason', 'Reason'], ['instance', 'Bridge']],
      '',
      description='What is wrong though the bridge works; /readyz has the details.',
      descending=false,
      height=6
    ),
    p.table(
      'Masters',
      metric('gsdk_master_up') + p.noData(bridges, 'master'),
      [['master', 'Master'], ['instance', 'Bridge']],
      'State',
      description='Master gateways. Those that are lost are first; the gateways behind them are lost, too.',
      descending=false,
      height=6,
      mappings=[p.mapping([[0, 'LOST', 'red'], [1, 'online', 'green']])]
    ),
  ],

  local events = [
    p.row('Events and broker'),
    p.lines(
      "From the gateway's stream to the broker's acknowledgement",
      [[quantile(q, 'gsdk_event_delivery_seconds', 'le'), 'p%d' % (100 * q)] for q in [0.5, 0.99]],
      's'
    ),
    lines('Outbox', metric('gsdk_outbox_events'), '{{instance}}', description='Events that the broker has not acknowledged.'),
    lines('Published', rate('gsdk_mqtt_published_total', 'kind'), '{{kind}}', 'reqps'),
    lines('Refused by the broker', rate('gsdk_mqtt_publish_failures_total', 'reason'), '{{reason}}', 'reqps'),
    lines('Connections to the broker, an hour', 'increase(%s[1h])' % metric('gsdk_mqtt_connections_total'), '{{instance}}'),
    lines('Commands', rate('gsdk_commands_total', 'command, result'), '{{command}} {{result}}', 'reqps'),
  ],

  local gateways = [
    p.row('Gateways'),
    p.lines(
      'Changes, repeats, corrections',
      [
        [rate('gsdk_%s_total' % what[0], 'gateway'), '{{gateway}} ' + what[1]]
        for what in [['status_changes', 'changes'], ['repeated_status', 'repeats'], ['corrections', 'corrections']]
      ],
      'reqps',
      'Corrections: what an audit found and the stream had not delivered.'
    ),
    p.lines('Calls, p99', [[quantile(0.99, 'gsdk_rpc_duration_seconds', 'le, method'), '{{method}}']], 's'),
    lines('Links made, an hour', 'increase(%s[1h])' % metric('gsdk_gateway_stream_starts_total'), '{{gateway}}'),
    lines(
      'Clock skew',
      metric('gsdk_gateway_clock_skew_seconds'),
      '{{gateway}}',
      's',
      "The gateway's clock minus the bridge's: negative where it is slow.",
      min=null
    ),
  ],

  local process = [
    p.row('Process'),
    lines('Processor', 'rate(%s[$__rate_interval])' % metric('process_cpu_seconds_total'), '{{instance}}', 'percentunit'),
    lines('Resident memory', metric('process_resident_memory_bytes'), '{{instance}}', 'bytes'),
  ],

  grafanaDashboards+:: {
    'bridge.json': p.dashboard(
      c,
      'gsdk2mqtt-bridge',
      'gsdk2mqtt: bridge',
      'Whether the bridge itself works: broker, outbox, store, links to the gateways.',
      ['The fleet', 'gsdk2mqtt-fleet'],
      [],
      now + events + gateways + process
    ),
  },
}
