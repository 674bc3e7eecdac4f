// Builds panels and whole dashboards; what they show is in fleet.libsonnet and bridge.libsonnet.
local source = { type: 'prometheus', uid: '${datasource}' };

local target(expr, legend='', instant=false, format=null) = {
  datasource: source,
  expr: expr,
  legendFormat: legend,
  instant: instant,
  range: !instant,
  [if format != null then 'format']: format,
};

local thresholds(steps) = {
  mode: 'absolute',
  steps: [{ value: step[0], color: step[1] } for step in steps],
};

// From [value, text, color] each.
local mapping(options) = {
  type: 'value',
  options: {
    [std.toString(options[i][0])]: { text: options[i][1], color: options[i][2], index: i }
    for i in std.range(0, std.length(options) - 1)
  },
};

local panel(type, title, description, width, height, targets) = {
  type: type,
  title: title,
  description: description,
  datasource: source,
  targets: [targets[i] { refId: std.char(65 + i) } for i in std.range(0, std.length(targets) - 1)],
  gridPos: { w: width, h: height },
  fieldConfig: { defaults: { noValue: 'no data' }, overrides: [] },
  options: {},
};

{
  grey:: '#8e8e8e',
  target:: target,
  thresholds:: thresholds,
  mapping:: mapping,
  panel:: panel,

  row(title):: { type: 'row', title: title, collapsed: false, panels: [], gridPos: { w: 24, h: 1 } },

  // One number, as it is now. Without data it says so in grey: `steps` begin at 0.
  number(title, expr, steps, description='', unit='short', mappings=[])::
    panel('stat', title, description, 3, 4, [target(expr, instant=true)]) + {
      fieldConfig+: { defaults+: {
        unit: unit,
        mappings: mappings,
        thresholds: thresholds([[null, $.grey]] + steps),
      } },
      options: {
        colorMode: 'value',
        graphMode: 'none',
        reduceOptions: { calcs: ['lastNotNull'] },
      },
    },

  // A number that is 1 where all is well, and 0 otherwise.
  flag(title, expr, good, bad, description='')::
    $.number(
      title,
      expr,
      [[0, 'red'], [1, 'green']],
      description,
      mappings=[mapping([[0, bad, 'red'], [1, good, 'green']])]
    ),

  // Lines over time; `queries` are [expr, legend] each.
  lines(title, queries, unit='short', description='', min=0)::
    panel('timeseries', title, description, 12, 8, [target(query[0], query[1]) for query in queries]) + {
      fieldConfig+: { defaults+: {
        unit: unit,
        [if min != null then 'min']: min,
        custom: { lineWidth: 1, fillOpacity: 10, showPoints: 'never' },
      } },
    },

  // A table with one line for each series: the labels of `columns` as [label, title], then the value,
  // unless `value` is empty.
  table(title, expr, columns, value, unit='short', description='', descending=true, height=10, mappings=[])::
    local shown = [column[0] for column in columns];
    panel('table', title, description, 12, height, [target(expr, instant=true, format='table')]) + {
      fieldConfig: {
        // Empty only where there is data: see `noData` in the queries.
        defaults: { noValue: 'none' },
        overrides: if value == '' then [] else [{
          matcher: { id: 'byName', options: value },
          properties: [{ id: 'unit', value: unit }, { id: 'noValue', value: '-' }]
                      + (if mappings == [] then [] else [{ id: 'mappings', value: mappings }]),
        }],
      },
      options: { sortBy: [{ displayName: if value == '' then columns[0][1] else value, desc: descending }] },
      transformations: [
        { id: 'filterFieldsByName', options: { include: {
          names: shown + (if value == '' then [] else ['Value']),
        } } },
        { id: 'organize', options: {
          indexByName: { [shown[i]]: i for i in std.range(0, std.length(shown) - 1) },
          renameByName: { [column[0]]: column[1] for column in columns } + { Value: value },
        } },
      ],
    },

  // A choice of label values, all by default.
  variable(name, label, query):: {
    type: 'query',
    name: name,
    label: label,
    datasource: source,
    query: query,
    refresh: 2,
    sort: 1,
    multi: true,
    includeAll: true,
    allValue: '.+',
  },

  // `panels` in reading order; each gets its place and its number.
  dashboard(config, uid, title, description, link, variables, panels)::
    local place(state, next) =
      local fits = state.x + next.gridPos.w <= 24;
      local at = if fits then state else state { x: 0, y: state.y + state.h, h: 0 };
      {
        x: at.x + next.gridPos.w,
        y: at.y,
        h: std.max(at.h, next.gridPos.h),
        panels: at.panels + [next { id: std.length(at.panels) + 1, gridPos+: { x: at.x, y: at.y } }],
      };
    {
      uid: uid,
      title: title,
      description: description,
      tags: config.dashboardTags,
      timezone: 'browser',
      refresh: config.dashboardRefresh,
      time: { from: config.dashboardFrom, to: 'now' },
      graphTooltip: 1,
      editable: true,
      schemaVersion: 36,
      links: [{
        type: 'link',
        title: link[0],
        url: '/d/' + link[1],
        keepTime: true,
        includeVars: true,
      }],
      templating: { list: [
        { type: 'datasource', name: 'datasource', label: 'Data source', query: 'prometheus' },
        $.variable('instance', 'Bridge', 'label_values(up{%s}, instance)' % config.selector),
      ] + variables },
      panels: std.foldl(place, panels, { x: 0, y: 0, h: 0, panels: [] }).panels,
    },

  // Whether the chosen bridges answer Prometheus: the first panel of each dashboard.
  bridgeUp(selector)::
    $.flag(
      'Bridge',
      'min(up{%s})' % selector,
      'up',
      'DOWN',
      'Whether Prometheus can scrape every chosen bridge. While one is down, nothing here is known of its devices.'
    ) + { gridPos+: { w: 6 }, options+: { colorMode: 'background' } },

  // Appended to a table's query: a line for each bridge that is down, or for all if none is known.
  noData(selector, label='name')::
    ' or label_replace((up{%s} == 0 or absent(up{%s})) * NaN, "%s", "NO DATA: bridge $1 is down", "instance", "(.*)")'
    % [selector, selector, label],
}
