// Dashboard of the fleet: which devices are down now and since when, and how the chosen time was.
local p = import 'panels.libsonnet';

{
  local c = $._config,
  local bridges = c.selector + ', instance=~"$instance"',
  local chosen = bridges + ', gateway=~"$gateway"',
  local metric(name, labels='') = '%s{%s%s}' % [name, chosen, labels],
  local device = 'on (instance, gateway, device_id)',
  local named = '* %s group_left (name) %s' % [device, metric('gsdk_device_info')],

  local count(connected) = 'sum(%s)' % metric('gsdk_gateway_devices', ', connected="%s"' % connected),
  local connected = metric('gsdk_device_connected'),
  // A device that need not be there is not connected, and not down either.
  local expected = 'and %s %s == 1' % [device, metric('gsdk_device_expected')],
  local down = '(%s == bool 0) %s' % [connected, expected],
  local since = '%s and %s %s == 0 %s'
                % [metric('gsdk_device_since_timestamp_seconds'), device, connected, expected],
  local unknown = '%s unless %s %s' % [metric('gsdk_device_info'), device, connected],
  local disconnects = 'increase(%s[$__range])' % metric('gsdk_device_disconnects_total'),
  local connectedSeconds = 'increase(%s[$__range])' % metric('gsdk_device_connected_seconds_total'),
  local observedSeconds = 'increase(%s[$__range])' % metric('gsdk_device_observed_seconds_total'),

  local columns = [['name', 'Name'], ['gateway', 'Gateway'], ['device_id', 'Device']],
  local table(title, expr, value, unit='short', description='', descending=true, height=10) =
    p.table(title, expr + p.noData(bridges), columns, value, unit, description, descending, height),
  local availabilitySteps = [[0, 'red'], [0.99, 'orange'], [0.999, 'green']],

  local now = [
    p.row('Now'),
    p.bridgeUp(bridges),
    p.number('Connected', count('true'), [[0, 'green']]),
    p.number('Disconnected', 'sum(%s)' % down, [[0, 'green'], [1, 'red']], 'Of those that should be there.'),
    p.number('Unknown', count('unknown'), [[0, 'green'], [1, 'orange']], 'Their gateway is lost.'),
    p.number('Gateways lost', 'sum(1 - %s)' % metric('gsdk_gateway_up'), [[0, 'green'], [1, 'red']]),
    p.number(
      'Availability of the chosen time',
      'sum(%s) / (sum(%s) > 0)' % [connectedSeconds, observedSeconds],
      availabilitySteps,
      'Of the observed time only: exact, whatever the scrape interval.',
      'percentunit'
    ),
    p.number('Disconnects in the chosen time', 'sum(%s)' % disconnects, []),
    table(
      'Down now, and since when',
      '(%s) %s * 1000' % [since, named],
      'Since',
      'dateTimeFromNow',
      'Devices of a lost gateway are not here: they are unknown.',
      descending=false
    ),
    table('Unknown now', unknown, '', description='Devices of lost gateways.', descending=false),
  ],

  local timeline =
    p.panel(
      'state-timeline',
      'State, of the devices that disconnected',
      'In a gap the state was unknown.',
      24,
      10,
      [p.target('(%s and %s %s >= 1) %s' % [connected, device, disconnects, named], '{{gateway}} {{name}}')]
    ) + {
      fieldConfig+: { defaults+: {
        mappings: [p.mapping([[0, 'down', 'red'], [1, 'up', 'green']])],
        custom: { lineWidth: 0, fillOpacity: 80 },
      } },
      options: { showValue: 'never', mergeValues: true, rowHeight: 0.8 },
    },

  local worst =
    local availability = '(%s / (%s > 0)) %s' % [connectedSeconds, observedSeconds, named];
    p.panel(
      'bargauge',
      'Availability by device, the worst 25',
      'Share of the observed time in which the device was connected.',
      12,
      12,
      [p.target('sort(bottomk(25, %s))' % availability, '{{gateway}} {{name}}', instant=true)]
    ) + {
      fieldConfig+: { defaults+: {
        unit: 'percentunit',
        decimals: 3,
        min: 0,
        max: 1,
        thresholds: p.thresholds([[null, p.grey]] + availabilitySteps),
      } },
      options: { orientation: 'horizontal', displayMode: 'basic', reduceOptions: { calcs: ['lastNotNull'] } },
    },

  local history = [
    p.row('The chosen time'),
    timeline,
    worst,
    table('Most disconnects', 'topk(25, %s >= 1) %s' % [disconnects, named], 'Disconnects', height=12),
    p.lines('Flapping: disconnects an hour', [[
      'sum by (gateway) (increase(%s[1h]))' % metric('gsdk_device_disconnects_total'),
      '{{gateway}}',
    ]]),
    p.lines('Devices not connected', [
      ['sum by (instance, gateway) (%s)' % down, '{{gateway}}'],
      [metric('gsdk_gateway_devices', ', connected="unknown"'), '{{gateway}}, unknown'],
    ]),
  ],

  grafanaDashboards+:: {
    'fleet.json': p.dashboard(
      c,
      'gsdk2mqtt-fleet',
      'gsdk2mqtt: fleet',
      'Which devices are down now and since when, and how it was over the chosen time.',
      ["The bridge's own health", 'gsdk2mqtt-bridge'],
      [p.variable('gateway', 'Gateway', 'label_values(gsdk_gateway_up{%s}, gateway)' % bridges)],
      now + history
    ),
  },
}
