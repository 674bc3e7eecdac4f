//! The status page written down: all of it, and the parts that change.
//!
//! May not decide anything: every word is what the copies say.

use serde_json::json;

use super::data::{
    Changes, Condition, DeviceRow, EventRow, GatewayRow, HOUR_S, HOURS, Hour, Overview, PAGE_ROWS,
    Page, Wanted,
};
use super::html::Html;
use crate::fleet::LinkState;
use crate::ids::Moment;
use crate::payload::rfc3339;

/// The width of an hour in a bar, and its height.
const HOUR_WIDTH: usize = 5;
const BAR_HEIGHT: u32 = 20;

/// What those who watch were told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    overview: String,
}

pub(super) fn page(page: &Page, wanted: &Wanted) -> String {
    let Overview { bridge, version, started_at, .. } = &page.overview;
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
        .raw("<meta name=\"color-scheme\" content=\"light dark\"><title>")
        .text(bridge)
        .raw(" – gsdk2mqtt</title><link rel=\"icon\" href=\"icon.svg\">")
        .raw("<link rel=\"stylesheet\" href=\"page.css\"><script src=\"page.js\" defer></script>")
        .raw("</head><body><header><h1>")
        .text(bridge)
        .raw("</h1><p id=\"live\" role=\"status\">as of <time datetime=\"")
        .text(rfc3339(page.overview.now))
        .raw("\">")
        .text(minute(page.overview.now))
        .raw("</time></p></header><main><div id=\"overview\">");
    overview(&page.overview, &mut html);
    html.raw("</div>");
    form(wanted, &mut html);
    html.raw("<section id=\"list\">");
    list(page, wanted, &mut html);
    html.raw("</section><section><h2>Last events</h2><ol id=\"events\">");
    events(&page.events, &mut html);
    html.raw("</ol></section></main><footer><p>The bars are the last 24 hours, the present one ")
        .raw("right: <span class=\"key up\">connected</span>, <span class=\"key down\">not ")
        .raw("connected</span>, <span class=\"key\">not observed</span>. They begin with the ")
        .raw("process, at <time datetime=\"")
        .text(rfc3339(*started_at))
        .raw("\">")
        .text(minute(*started_at))
        .raw("</time>; time not observed counts as neither.</p><p>gsdk2mqtt ")
        .text(version)
        .raw(" · <a href=\"metrics\">metrics</a> · <a href=\"healthz\">healthz</a> · ")
        .raw("<a href=\"readyz\">readyz</a></p></footer></body></html>\n");
    html.into_string()
}

/// What changed, as server-sent events; empty where nothing did.
pub(super) fn changes(changes: &Changes, told: &mut Told) -> String {
    let mut message = String::new();
    let mut say = |event: &str, data: serde_json::Value| {
        message += &format!("event: {event}\ndata: {data}\n\n");
    };
    let mut html = Html::default();
    overview(&changes.overview, &mut html);
    let html = html.into_string();
    if html != told.overview {
        say("overview", json!(html));
        told.overview = html;
    }
    match &changes.devices {
        None => say("reload", json!(null)),
        Some(devices) => {
            for device in devices {
                let mut html = Html::default();
                row(device, &mut html);
                let row = json!({ "id": row_id(device), "html": html.into_string() });
                say("device", row);
            }
        }
    }
    if let Some(rows) = &changes.events {
        let mut html = Html::default();
        events(rows, &mut html);
        say("events", json!(html.into_string()));
    }
    message
}

fn overview(overview: &Overview, html: &mut Html) {
    if !overview.reasons.is_empty() {
        html.raw("<div class=\"trouble\" role=\"alert\"><strong>Not all is well</strong><ul>");
        for reason in &overview.reasons {
            html.raw("<li>").text(reason).raw("</li>");
        }
        html.raw("</ul></div>");
    }
    let sum = |of: fn(&GatewayRow) -> usize| overview.gateways.iter().map(of).sum::<usize>();
    html.raw("<ul class=\"counts\">");
    for (class, word, count) in [
        ("down", "not connected", sum(|gateway| gateway.state.disconnected)),
        ("unknown", "unknown", sum(|gateway| gateway.state.unknown)),
        ("up", "connected", sum(|gateway| gateway.state.connected)),
    ] {
        html.raw("<li class=\"").text(class).raw(if count == 0 { " none" } else { "" });
        html.raw("\"><a href=\"?show=").text(class).raw("\"><b>").text(count).raw("</b> ");
        html.text(word).raw("</a></li>");
    }
    html.raw("</ul><ul class=\"gateways\">");
    for gateway in &overview.gateways {
        gateway_card(gateway, html);
    }
    html.raw("</ul>");
    if overview.pending > 0 {
        html.raw("<p class=\"sub\">").text(overview.pending).raw(" events wait for the broker</p>");
    }
}

fn gateway_card(gateway: &GatewayRow, html: &mut Html) {
    let state = &gateway.state;
    let class = match state.state {
        LinkState::Online => "up",
        LinkState::Lost => "down",
        LinkState::Connecting | LinkState::Syncing => "unknown",
    };
    html.raw("<li class=\"").text(class).raw("\"><span class=\"dot\"></span><div><b>");
    html.text(&gateway.name).raw("</b> <span class=\"word\">").text(state.state.name());
    html.raw("</span> ");
    since(state.since, html);
    html.raw("<span class=\"sub\">").text(&gateway.address).raw(" · ");
    html.text(state.connected).raw(" of ").text(state.devices()).raw(" connected</span>");
    if let Some(error) = &gateway.last_error {
        html.raw("<span class=\"sub error\">").text(error).raw("</span>");
    }
    html.raw("</div></li>");
}

fn form(wanted: &Wanted, html: &mut Html) {
    html.raw("<form method=\"get\" action=\"\" role=\"search\"><h2>Devices</h2>")
        .raw("<input type=\"search\" name=\"q\" maxlength=\"100\" autocomplete=\"off\" ")
        .raw("placeholder=\"Name, ID, address, gateway\" aria-label=\"Filter\" value=\"")
        .text(&wanted.text)
        .raw("\"><select name=\"show\" aria-label=\"State\">");
    let options = [
        (None, "", "all"),
        (Some(Condition::Down), "down", "not connected"),
        (Some(Condition::Unknown), "unknown", "unknown"),
        (Some(Condition::Up), "up", "connected"),
        (Some(Condition::Absent), "absent", "not expected"),
    ];
    for (only, value, word) in options {
        let chosen = if only == wanted.only { " selected" } else { "" };
        html.raw("<option value=\"").text(value).raw("\"").raw(chosen).raw(">").text(word);
        html.raw("</option>");
    }
    html.raw("</select><button>Filter</button></form>");
}

fn list(page: &Page, wanted: &Wanted, html: &mut Html) {
    let first = wanted.page.saturating_mul(PAGE_ROWS);
    if page.devices.is_empty() {
        html.raw("<p class=\"sub\" id=\"nothing\">No device fits.</p>");
    }
    html.raw("<table><thead><tr><th>Device<th>State<th>Since<th>Last 24 hours</thead><tbody>");
    for device in &page.devices {
        row(device, html);
    }
    html.raw("</tbody></table>");
    if page.matching > page.devices.len() && !page.devices.is_empty() {
        html.raw("<nav class=\"pages\">");
        if wanted.page > 0 {
            page_link(wanted, wanted.page - 1, "← before", html);
        }
        html.raw("<span>").text(first + 1).raw("–").text(first + page.devices.len());
        html.raw(" of ").text(page.matching).raw("</span>");
        if first + page.devices.len() < page.matching {
            page_link(wanted, wanted.page + 1, "after →", html);
        }
        html.raw("</nav>");
    }
}

fn page_link(wanted: &Wanted, page: usize, word: &'static str, html: &mut Html) {
    let show = wanted.only.map_or("", Condition::word);
    let coded = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let text: String = wanted.text.bytes().map(coded).collect();
    html.raw("<a href=\"?q=").text(text).raw("&amp;show=").text(show).raw("&amp;page=");
    html.text(page).raw("\">").raw(word).raw("</a>");
}

fn row_id(device: &DeviceRow) -> String {
    format!("d-{}-{}", device.gateway, device.state.device_id)
}

fn row(device: &DeviceRow, html: &mut Html) {
    let DeviceRow { gateway, name, state, day } = device;
    let condition = Condition::of(state);
    let info = state.info;
    let device_type = info.map(|info| info.device_type).filter(|known| !known.is_undefined());
    let product =
        device_type.map_or_else(String::new, |known| format!(" · {}", known.product_name()));
    let ip = info.and_then(|info| info.ip).map_or_else(String::new, |ip| format!(" · {ip}"));
    let about = format!("{gateway} · {}{product}{ip}", state.device_id);
    html.raw("<tr id=\"").text(row_id(device)).raw("\" class=\"").text(condition.word());
    html.raw("\"><th scope=\"row\"><span class=\"name\">").text(name);
    html.raw("</span><span class=\"sub\">").text(about).raw("</span></th><td class=\"state\">");
    html.raw("<span class=\"dot\"></span><span class=\"word\">");
    html.raw(match condition {
        Condition::Down => "not connected",
        Condition::Unknown => "unknown",
        Condition::Up => "connected",
        Condition::Absent => "not expected",
    });
    html.raw("</span><span class=\"sub\">");
    match (state.status, state.last_known) {
        (Some(status), _) => _ = html.text(status),
        (None, Some(last)) => _ = html.raw("was ").text(last.status),
        (None, None) => {}
    }
    if !state.managed {
        html.raw(" · not in the gateway's list");
    }
    html.raw("</span></td><td class=\"when\">");
    let known = state.last_known.map(|last| last.since);
    if let Some(at) = state.since.or(known) {
        since(at, html);
        if state.since.is_some() && !state.since_exact {
            html.raw("<span class=\"sub\">or before</span>");
        }
    }
    html.raw("</td><td class=\"day\">");
    bar(day, html);
    html.raw("</td></tr>");
}

fn bar(day: &[Hour; HOURS], html: &mut Html) {
    let sum = |of: fn(&Hour) -> u16| day.iter().map(|hour| u32::from(of(hour))).sum::<u32>();
    let (observed, down) = (sum(|hour| hour.observed_s), sum(|hour| hour.down_s));
    // Rounded down: 100 % is said only of time without any gap.
    let share = (observed > 0).then(|| (observed - down.min(observed)) * 100 / observed);
    let words = match share {
        Some(share) => format!("connected {share} % of {}", observed_words(observed)),
        None => "not observed yet".to_owned(),
    };
    html.raw("<svg viewBox=\"0 0 120 20\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"");
    html.text(&words).raw("\"><title>").text(&words).raw("</title>");
    for (at, hour) in day.iter().enumerate().filter(|(_, hour)| hour.observed_s > 0) {
        let full = u32::from(HOUR_S);
        // Whatever there was of a state is to be seen.
        let height = |seconds: u16| (u32::from(seconds) * BAR_HEIGHT).div_ceil(full).max(2);
        let observed = height(hour.observed_s);
        let down = if hour.down_s > 0 { height(hour.down_s).min(observed) } else { 0 };
        let top = BAR_HEIGHT.saturating_sub(observed);
        rect(at, "down", top, down, html);
        rect(at, "up", top + down, observed - down, html);
    }
    html.raw("</svg><span class=\"share\">");
    match share {
        Some(share) => _ = html.text(share).raw(" %"),
        None => _ = html.raw("–"),
    }
    html.raw("</span>");
}

fn rect(at: usize, class: &'static str, top: u32, height: u32, html: &mut Html) {
    if height > 0 {
        html.raw("<rect class=\"").raw(class).raw("\" x=\"").text(at * HOUR_WIDTH);
        html.raw("\" width=\"4\" y=\"").text(top).raw("\" height=\"").text(height).raw("\"/>");
    }
}

fn observed_words(seconds: u32) -> String {
    match seconds / 60 {
        0 => "the first minute".to_owned(),
        minutes @ 1..120 => format!("{minutes} min observed"),
        minutes => format!("{} h observed", minutes / 60),
    }
}

fn events(rows: &[EventRow], html: &mut Html) {
    if rows.is_empty() {
        html.raw("<li class=\"sub\">None since the process began.</li>");
    }
    for event in rows {
        let class = match event.what {
            "connected" | "reachable" | "restored" => "up",
            "disconnected" | "unreachable" | "connect_failed" | "refused" => "down",
            _ => "unknown",
        };
        html.raw("<li class=\"").text(class).raw("\"><time class=\"clock\" datetime=\"");
        html.text(rfc3339(event.at)).raw("\">").text(second(event.at));
        html.raw("</time><span class=\"dot\"></span><div><b>");
        match &event.device {
            Some(device) => _ = html.text(device),
            None => _ = html.raw("Gateway ").text(&event.gateway),
        }
        html.raw("</b> <span class=\"word\">").text(event.what.replace('_', " "));
        html.raw("</span><span class=\"sub\">");
        if event.device.is_some() {
            html.text(&event.gateway).raw(" · ");
        }
        html.text(&event.detail);
        if let Some(lasted) = event.lasted_ms {
            html.raw(" · after ").text(span(lasted));
        }
        html.raw("</span></div></li>");
    }
}

/// A length of time in its two largest units.
fn span(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn since(at: Moment, html: &mut Html) {
    html.raw("<time class=\"since\" datetime=\"").text(rfc3339(at)).raw("\">").text(minute(at));
    html.raw("</time> ");
}

fn minute(at: Moment) -> String {
    written(at, "%Y-%m-%d %H:%M UTC")
}

fn second(at: Moment) -> String {
    written(at, "%H:%M:%S UTC")
}

fn written(at: Moment, format: &str) -> String {
    let timestamp = jiff::Timestamp::from_millisecond(at.millis());
    timestamp.map_or_else(|_| rfc3339(at), |timestamp| timestamp.strftime(format).to_string())
}
