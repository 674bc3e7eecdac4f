"""The dashboards, from one typed source: `python dashboards/source/dashboards.py [FOLDER]` writes the
JSON.

May not be edited in Grafana and pasted back: what is in `dashboards/*.json` is what this writes, and
a test holds that. Queries follow docs/metrics.md.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Which gateways of which bridges.
OF = 'instance=~"$instance", gateway=~"$gateway"'
DEVICE = "on (instance, gateway, device_id)"
NAMED = f"* {DEVICE} group_left (name) gsdk_device_info"
GREEN, RED, GREY, AMBER = "green", "red", "#8e8e8e", "orange"


def query(expr, legend="", instant=False, as_table=False):
    built = prometheus.Dataquery().expr(expr).legend_format(legend).datasource(SOURCE)
    built = built.instant() if instant else built.range()
    return built.format(PromQueryFormat.TABLE) if as_table else built


def thresholds(*steps):
    listed = [models.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(listed)


def number(title, expr, steps, unit="short", says=""):
    """One number, as it is now."""
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .with_target(query(expr, instant=True))
        .unit(unit)
        .thresholds(thresholds(*steps))
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("0")
        .height(4)
        .span(4)
    )


def lines(title, queries, unit="short", says="", span=12):
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(shapes.VisibilityMode.NEVER)
        .height(8)
        .span(span)
    )
    for expr, legend in queries:
        panel = panel.with_target(query(expr, legend))
    return panel


def rows(title, expr, value, unit="short", says="", span=12, descending=True, height=10):
    """A table with a line a device: gateway, name, value (none: the line says it all)."""
    renamed = {"name": "Name", "gateway": "Gateway", "device_id": "Device", "Value": value}
    hidden = {name: True for name in ("Time", "__name__", "instance", "job", "device_type", "ip", "mode", "ssl")}
    hidden["Value"] = not value
    order = {"name": 0, "gateway": 1, "device_id": 2, "Value": 3}
    organize = {"excludeByName": hidden, "renameByName": renamed, "indexByName": order}
    return (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .with_target(query(expr, instant=True, as_table=True))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
        .override_by_name(value or "Value", [models.DynamicConfigValue(id_val="unit", value=unit)])
        .sort_by([common.TableSortByFieldState().display_name(value or "Name").desc(descending)])
        .no_value("nobody")
        .height(height)
        .span(span)
    )


def mapping(options):
    results = {
        str(value): models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, text, color) in enumerate(options)
    }
    return models.ValueMap(options=results)


def new(title, uid, says, links_to):
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    built = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["gsdk2mqtt"])
        .timezone("browser")
        .refresh("30s")
        .time("now-24h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(source)
        .with_variable(choice("instance", "Bridge", "label_values(gsdk_build_info, instance)"))
    )
    link = (
        dashboard.DashboardLink(links_to[0])
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{links_to[1]}")
        .keep_time(True)
        .include_vars(True)
    )
    return built.link(link)


def choice(name, label, expr):
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(expr)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
    )


def fleet():
    gateways = 'label_values(gsdk_gateway_up{instance=~"$instance"}, gateway)'
    built = new(
        "gsdk2mqtt: fleet",
        "gsdk2mqtt-fleet",
        "Who is down now and since when, and how it was over the chosen time.",
        ("The bridge's own health", "gsdk2mqtt-bridge"),
    ).with_variable(choice("gateway", "Gateway", gateways))
    devices = f"gsdk_gateway_devices{{{OF}, connected="
    connected = f"gsdk_device_connected{{{OF}}}"
    up, seen = "gsdk_device_connected_seconds_total", "gsdk_device_observed_seconds_total"
    uptime = f"increase({up}{{{OF}}}[$__range]) / (increase({seen}{{{OF}}}[$__range]) > 0)"
    disconnects = f"increase(gsdk_device_disconnects_total{{{OF}}}[$__range])"
    since = f"gsdk_device_since_timestamp_seconds and {DEVICE} ({connected} == 0)"
    # Who left the list is nobody's door any more, though not connected.
    managed = f"and {DEVICE} (gsdk_device_managed == 1)"
    down = f"({connected} == bool 0) {managed}"
    unknown = f"gsdk_device_info{{{OF}}} unless {DEVICE} gsdk_device_connected"
    availability = f"sum(increase({up}{{{OF}}}[$__range])) / (sum(increase({seen}{{{OF}}}[$__range])) > 0)"
    count = lambda value: f'sum({devices}"{value}"}})'
    built = (
        built.with_row(dashboard.Row("Now"))
        .with_panel(number("Connected", count("true"), [(None, GREEN)]))
        .with_panel(number("Disconnected", f"sum({down})", [(None, GREEN), (1, RED)], says="Of those in their gateway's list."))
        .with_panel(
            number(
                "Unknown",
                count("unknown"),
                [(None, GREEN), (1, GREY)],
                says="Their gateway is lost, so nobody can know.",
            )
        )
        .with_panel(
            number(
                "Gateways lost",
                f"sum(1 - gsdk_gateway_up{{{OF}}})",
                [(None, GREEN), (1, RED)],
            )
        )
        .with_panel(
            number(
                "Availability of the chosen time",
                availability,
                [(None, RED), (0.99, AMBER), (0.999, GREEN)],
                unit="percentunit",
                says="Of the observed time only: exact, whatever the scrape interval.",
            )
        )
        .with_panel(
            number("Disconnects in the chosen time", f"sum({disconnects})", [(None, GREY)])
        )
        .with_panel(
            rows(
                "Down now, and since when",
                f"({since} {managed}) {NAMED} * 1000",
                "Since",
                "dateTimeFromNow",
                says="Devices of a lost gateway are not here: they are unknown.",
                descending=False,
            )
        )
        .with_panel(
            rows("Unknown now", unknown, "", says="Devices of lost gateways.", descending=False)
        )
        .with_row(dashboard.Row("The chosen time"))
        .with_panel(timeline(connected))
        .with_panel(
            bargauge.Panel()
            .title("Availability by device, the worst 25")
            .description("Share of the observed time in which the device was connected.")
            .datasource(SOURCE)
            .with_target(query(f"sort(bottomk(25, ({uptime}) {NAMED}))", "{{gateway}} {{name}}", instant=True))
            .unit("percentunit")
            .decimals(3)
            .min(0)
            .max(1)
            .thresholds(thresholds((None, RED), (0.99, AMBER), (0.999, GREEN)))
            .orientation(shapes.VizOrientation.HORIZONTAL)
            .display_mode(shapes.BarGaugeDisplayMode.BASIC)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .height(12)
            .span(12)
        )
        .with_panel(
            rows(
                "Most disconnects",
                f"topk(25, {disconnects} >= 1) {NAMED}",
                "Disconnects",
                "short",
                height=12,
            )
        )
        .with_panel(
            lines(
                "Flapping: disconnects an hour",
                [
                    (
                        f"sum by (gateway) (increase(gsdk_device_disconnects_total{{{OF}}}[1h]))",
                        "{{gateway}}",
                    )
                ],
            )
        )
        .with_panel(
            lines(
                "Devices not connected",
                [(f"sum by (instance, gateway) ({down})", "{{gateway}}"), (f'{devices}"unknown"}}', "{{gateway}}, unknown")],
            )
        )
    )
    return built


def timeline(connected):
    moved = f"and {DEVICE} (increase(gsdk_device_disconnects_total{{{OF}}}[$__range]) >= 1)"
    return (
        statetimeline.Panel()
        .title("State, of the devices that disconnected")
        .description("Gaps are times in which nobody could know.")
        .datasource(SOURCE)
        .with_target(query(f"({connected} {moved}) {NAMED}", "{{gateway}} {{name}}"))
        .mappings([mapping([(0, "down", RED), (1, "up", GREEN)])])
        .show_value(shapes.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .line_width(0)
        .fill_opacity(80)
        .height(10)
        .span(24)
    )


def bridge():
    of = 'instance=~"$instance"'
    built = new(
        "gsdk2mqtt: bridge",
        "gsdk2mqtt-bridge",
        "Whether the bridge itself is well: broker, outbox, store, gateways' links.",
        ("The fleet", "gsdk2mqtt-fleet"),
    )
    delivery = f"sum by (le) (rate(gsdk_event_delivery_seconds_bucket{{{of}}}[$__rate_interval]))"
    calls = f"sum by (le, method) (rate(gsdk_rpc_duration_seconds_bucket{{{of}}}[$__rate_interval]))"
    rate = lambda name, by: f"sum by ({by}) (rate({name}{{{of}}}[$__rate_interval]))"
    good, bad = [(None, RED), (1, GREEN)], [(None, GREEN), (1, RED)]
    return (
        built.with_row(dashboard.Row("Now"))
        .with_panel(number("Broker connected", f"min(gsdk_mqtt_connected{{{of}}})", good))
        .with_panel(number("Gateways live", f"min(gsdk_gateway_up{{{of}}})", good, says="0: at least one is lost."))
        .with_panel(number("Store kept", f"min(gsdk_store_ok{{{of}}})", good, says="0: events live in memory only."))
        .with_panel(number("Events waiting", f"sum(gsdk_outbox_events{{{of}}})", [(None, GREEN), (10000, AMBER)]))
        .with_panel(number("Events dropped", f"sum(gsdk_outbox_dropped_total{{{of}}})", bad))
        .with_panel(
            number(
                "First certificate to end",
                f"min(gsdk_gateway_certificate_expiry_timestamp_seconds{{{of}}}) * 1000",
                [(None, GREY)],
                unit="dateTimeFromNow",
            )
        )
        .with_row(dashboard.Row("Events and broker"))
        .with_panel(
            lines(
                "From the stream to the broker's word",
                [(f"histogram_quantile({q}, {delivery})", f"p{int(q * 100)}") for q in (0.5, 0.99)],
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Outbox",
                [(f"gsdk_outbox_events{{{of}}}", "{{instance}}")],
                says="Events that the broker has not acknowledged.",
            )
        )
        .with_panel(lines("Published", [(rate("gsdk_mqtt_published_total", "kind"), "{{kind}}")], unit="reqps"))
        .with_panel(
            lines("Not taken by the broker", [(rate("gsdk_mqtt_publish_failures_total", "reason"), "{{reason}}")], unit="reqps")
        )
        .with_panel(
            lines(
                "Connections to the broker, an hour",
                [(f"increase(gsdk_mqtt_connections_total{{{of}}}[1h])", "{{instance}}")],
            )
        )
        .with_panel(lines("Commands", [(rate("gsdk_commands_total", "command, result"), "{{command}} {{result}}")], unit="reqps"))
        .with_row(dashboard.Row("Gateways"))
        .with_panel(
            lines(
                "Changes, repeats, corrections",
                [
                    (rate("gsdk_status_changes_total", "gateway"), "{{gateway}} changes"),
                    (rate("gsdk_repeated_status_total", "gateway"), "{{gateway}} repeats"),
                    (rate("gsdk_corrections_total", "gateway"), "{{gateway}} corrections"),
                ],
                unit="reqps",
                says="Corrections: what an audit found and the stream had not told.",
            )
        )
        .with_panel(lines("Calls, p99", [(f"histogram_quantile(0.99, {calls})", "{{method}}")], unit="s"))
        .with_panel(
            lines(
                "Links made, an hour",
                [(f"increase(gsdk_gateway_stream_starts_total{{{of}}}[1h])", "{{gateway}}")],
            )
        )
        .with_panel(
            lines("Clock skew", [(f"gsdk_gateway_clock_skew_seconds{{{of}}}", "{{gateway}}")], unit="s")
        )
        .with_row(dashboard.Row("Process"))
        .with_panel(lines("Processor", [(f"rate(process_cpu_seconds_total{{{of}}}[$__rate_interval])", "{{instance}}")], unit="percentunit"))
        .with_panel(lines("Resident memory", [(f"process_resident_memory_bytes{{{of}}}", "{{instance}}")], unit="bytes"))
    )


def main():
    ours = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ours
    for name, built in (("fleet", fleet()), ("bridge", bridge())):
        board = built.build()
        for number, panel in enumerate(board.panels, start=1):
            panel.id_val = number
        text = json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
