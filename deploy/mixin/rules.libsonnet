// Recording rules: hourly sums, so that availability over weeks need not read every sample.
{
  local c = $._config,
  local increase(of) = {
    record: 'gsdk:device_%s_seconds:increase1h' % of,
    expr: 'increase(gsdk_device_%s_seconds_total{%s}[1h])' % [of, c.selector],
  },
  prometheusRules+:: {
    groups+: [{
      name: 'gsdk2mqtt-availability',
      interval: '1h',
      rules: [increase('connected'), increase('observed')],
    }],
  },
}
