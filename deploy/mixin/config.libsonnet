// The parameters and their defaults. Override them with `+ { _config+:: { ... } }`.
{
  _config+:: {
    // Selects the bridges' scrape targets, and with it every series. Where it matches no target,
    // GsdkBridgeAbsent fires.
    selector: 'job="gsdk2mqtt"',

    // The alert's name in lower case is appended.
    runbookUrl: 'https://github.com/gsdk2mqtt/gsdk2mqtt/blob/main/docs/alerts.md#',

    // How long bridge, gateway (or master) and broker may be away before their alerts fire.
    bridgeDownFor: '2m',
    gatewayUnreachableFor: '2m',
    brokerDownFor: '2m',
    // Alerts that fired stay firing so long after their target has left Prometheus's target list.
    // Must be longer than bridgeDownFor.
    targetGoneFor: '10m',

    deviceDownSeconds: 300,
    flappingDisconnects: 4,
    flappingWindow: '1h',
    // GsdkManyDevicesLost: at least so many, and more than this share of the gateway's devices.
    lostDevices: 3,
    lostShare: 0.2,
    lostWindow: '5m',

    // Beyond two audit intervals.
    listOverdueSeconds: 300,
    corrections: 10,
    correctionsWindow: '1h',
    clockSkewSeconds: 60,
    clockSkewFor: '10m',
    certificateDays: 30,
    outboxEvents: 10000,
    outboxFor: '5m',
    degradedFor: '5m',

    dashboardTags: ['gsdk2mqtt'],
    dashboardRefresh: '30s',
    dashboardFrom: 'now-24h',
  },
}
