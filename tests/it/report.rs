//! `gsdk2mqtt report` and `history` from outside: the record of a door that was disconnected, a
//! kill, and a lost gateway.

use std::path::Path;
use std::process::Output;

use gsdk2mqtt::simulator::Fault;
use serde_json::Value;

use crate::harness::bridge::{Bridge, PROGRAM, Setup};
use crate::harness::certificates::{Ca, Certified};
use crate::harness::gateway::Gateway;
use crate::harness::mosquitto::{Mosquitto, free_port};
use crate::harness::watcher::Watcher;
use crate::harness::{bounded, eventually, patiently};

const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

fn report(config: &Path, words: &[&str]) -> Output {
    let mut command = bounded(PROGRAM);
    command.env("GSDK2MQTT_TIME_ZONE", "UTC").args(["report", "--config"]).arg(config).args(words);
    command.output().unwrap()
}

fn json(config: &Path, words: &[&str]) -> Value {
    let output = report(config, &[words, &["--format", "json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(config: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = report(config, words);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Requests a report until it is as expected: observations are written once a second.
async fn until(bridge: &Bridge, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    patiently(what, async {
        loop {
            let report = json(&bridge.config_file(), &["--last", "1h"]);
            if is(&report) {
                return report;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}

fn seconds(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field} of {row}"))
}

/// The four times add up to the period, to the millisecond.
fn adds_up(row: &Value) {
    let parts = ["connected_s", "disconnected_s", "unobserved_s", "absent_s"];
    let millis = |field| (seconds(row, field) * 1_000.0).round();
    let sum: f64 = parts.into_iter().map(millis).sum();
    assert_eq!(sum, millis("period_s"), "{row}");
}

fn row(report: &Value, device: u32) -> &Value {
    let rows = report["availability"].as_array().unwrap();
    rows.iter().find(|row| row["device_id"] == device).unwrap_or_else(|| panic!("{report}"))
}

/// The time between two events, by the bridge's clock.
fn between_s(from: &Value, to: &Value) -> f64 {
    let at = |event: &Value| -> jiff::Timestamp {
        event["received_at"].as_str().unwrap().parse().unwrap()
    };
    (at(to).as_millisecond() - at(from).as_millisecond()) as f64 / 1_000.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_distinguishes_observed_and_unobserved_time() {
    let broker = Mosquitto::start("").await;
    let watcher = Watcher::start(broker.port).await;
    let mut gateway = Gateway::start(3).await;
    patiently("every door is connected", async {
        while gateway.statuses().await.values().any(|status| !matches!(status, 1 | 2)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let setup = Setup::new(broker.port, "");
    let keys = "unknown_after = \"1s\"\n[gateways.lobby.devices]\n\
                7 = { name = \"<b>=1+1</b>\" }";
    let mut bridge = setup.gateway_at("lobby", gateway.address(), &gateway.ca_file(), keys).start();
    bridge.is_ready().await;
    let door = *gateway.statuses().await.keys().next().unwrap();

    // A door is down for a time that is known from its events.
    watcher.clear();
    let order = async |fault: &Fault| {
        let fault = serde_json::to_string(fault).unwrap();
        crate::harness::gateway::order(gateway.control_port(), &fault).await.unwrap();
    };
    order(&Fault::power(door, false)).await;
    let is = |kind: &'static str| {
        move |seen: &crate::harness::watcher::Seen| {
            seen.topic == format!("gsdk/lobby/{door}/event/{kind}")
        }
    };
    let down = watcher.see("the door is down", is("disconnected")).await.json();
    order(&Fault::power(door, true)).await;
    let up = watcher.see("the door is up", is("connected")).await.json();
    let was_down_s = between_s(&down, &up);
    let first = until(&bridge, "the outage is recorded", |report| {
        let row = row(report, door);
        row["outages"] == 1 && seconds(row, "disconnected_s") == was_down_s
    })
    .await;
    let before = row(&first, door).clone();
    adds_up(&before);
    assert_eq!(before["longest_outage_at"], down["received_at"]);
    assert_eq!(before["longest_outage_s"], before["disconnected_s"]);
    assert_eq!(before["longest_outage_at_least"], false);
    assert_eq!(row(&first, 7)["availability"], 0.0, "a declared door that is not there is down");

    let restarted = killed(&mut bridge, door, &before).await;
    let unobserved_s = seconds(row(&restarted, door), "unobserved_s");

    // The gateway is lost: its doors are not observed, and the outage is the gateway's.
    gateway.kill();
    let unreachable = "gsdk/lobby/event/unreachable";
    watcher.see("it is lost", |seen| seen.topic == unreachable && !seen.retained).await;
    gateway.restart();
    let lost = until(&bridge, "the gateway's outage", |report| {
        report["gateways"][0]["outages"] == 1
            && seconds(row(report, door), "connected_s")
                > seconds(row(&restarted, door), "connected_s")
    })
    .await;
    let gone_s = seconds(&lost["gateways"][0], "disconnected_s");
    assert!(gone_s >= 1.0, "as long as unknown_after: {gone_s}");
    assert!(seconds(row(&lost, door), "unobserved_s") >= unobserved_s + gone_s - 0.001, "{lost}");
    for row in lost["availability"].as_array().unwrap() {
        adds_up(row);
    }
    adds_up(&lost["total"]);
    adds_up(&lost["gateways"][0]);
    forms(&bridge.config_file(), door);
    unknown_in_history(&bridge.config_file(), "gsdk2mqtt report");
    api(&bridge, door).await;
    assert!(bridge.end().await.success());
    let (_, _, stderr) = text(&bridge.config_file(), &["--last", "1h"]);
    assert!(stderr.contains("/state/history.db (no answer from http://127.0.0.1:"), "{stderr}");
    unknown_in_history(&bridge.config_file(), "recorded are: lobby");
}

/// `history` refuses gateways and devices that are not recorded, as `report` does.
fn unknown_in_history(config: &Path, gateways: &str) {
    for (words, code, part) in [
        (["--gateway", "attic"], 1, gateways),
        (["--device", "12345"], 1, "no device 12345"),
        (["--event-type", "store_failed"], 0, "no such events"),
    ] {
        let mut command = bounded(PROGRAM);
        let output =
            command.args(["history", "--config"]).arg(config).args(words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert!(stderr.contains(part), "{words:?}: {stderr}");
    }
}

/// Kills the bridge; its report contains this, while it does not run and later. Returns that
/// report.
async fn killed(bridge: &mut Bridge, door: u32, before: &Value) -> Value {
    bridge.kill();
    let killed = std::time::Instant::now();
    let stopped = until(bridge, "time passes", |report| {
        seconds(row(report, door), "unobserved_s") > seconds(before, "unobserved_s") + 1.0
    })
    .await;
    adds_up(row(&stopped, door));
    bridge.restart();
    bridge.is_ready().await;
    let at_least_s = killed.elapsed().as_secs_f64() - 1.0;
    let restarted = until(bridge, "it observes again", |report| {
        let now = row(report, door);
        seconds(now, "connected_s") > seconds(row(&stopped, door), "connected_s")
    })
    .await;
    let unobserved_s = seconds(row(&restarted, door), "unobserved_s");
    assert!(unobserved_s > 1.0 && unobserved_s < at_least_s + 40.0, "{restarted}");
    assert_eq!(row(&restarted, door)["outages"], 1, "a stop of the bridge is no outage");
    restarted
}

#[tokio::test(flavor = "multi_thread")]
async fn time_up_to_a_clean_stop_is_observed() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let mut bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let ready = std::time::Instant::now();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let at_least_s = ready.elapsed().as_secs_f64();
    assert!(bridge.end().await.success());
    let report = json(&bridge.config_file(), &["--last", "1h"]);
    let row = &report["availability"][0];
    assert!(seconds(row, "connected_s") >= at_least_s, "{at_least_s} s: {row}");
    adds_up(row);
}

/// The formats of the report, and wrong options.
fn forms(config: &Path, door: u32) {
    let door = door.to_string();
    let (code, table, stderr) = text(config, &["--last", "1h"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("reading from the bridge at http://127.0.0.1:"), "{stderr}");
    assert!(table.contains(&door) && table.contains("gateways: lobby 1 outage"), "{table}");
    let (_, html, _) = text(config, &["--last", "1h", "--format", "html"]);
    assert!(html.contains("<html lang=\"en\">") && !html.contains("<script"), "{html}");
    assert!(html.contains("&lt;b&gt;=1+1&lt;/b&gt;") && !html.contains("<b>=1"), "{html}");

    let (_, csv, _) = text(config, &["--last", "1h", "--format", "CSV"]);
    let head = "\u{feff}gateway,device_id,name,start,end,label,period_s,connected_s,";
    assert!(csv.starts_with(head), "{csv}");
    assert!(csv.contains("\r\nlobby,7,<b>=1+1</b>,2") && csv.ends_with("\r\n"), "{csv}");

    // A month without data is not 0 %.
    let earlier = json(config, &["--month", "2020-01"]);
    assert_eq!(
        (&earlier["complete"], &earlier["total"]["availability"]),
        (&false.into(), &Value::Null)
    );
    adds_up(row(&earlier, door.parse().unwrap()));
    let (_, table, _) = text(config, &["--month", "2020-01"]);
    assert!(table.contains("\navailability not observed\ngateways: not observed\n"), "{table}");
    assert!(!table.contains("0 %") && !table.contains("no outages"), "{table}");

    let days = json(config, &["--last", "3d", "--bucket", "Day", "--device", &door]);
    assert!(days["availability"].as_array().unwrap().len() >= 3, "{days}");
    let below = json(config, &["--last", "1h", "--below", "50", "--gateway", "lobby"]);
    let ids: Vec<&Value> =
        below["availability"].as_array().unwrap().iter().map(|row| &row["device_id"]).collect();
    assert_eq!(ids, [7]);

    for (words, code, part) in [
        (&["--from", "2026-11-02", "--to", "2026-10-31"][..], 2, "ends before it begins"),
        (&["--time-zone", "Europe/Berln"], 2, "Europe/Berlin"),
        (&["--month", "2026-13"], 2, "as in 2026-11"),
        (&["--from", "2999-01-01"], 2, "in the future"),
        (&["--from", "2026"], 2, "write a year as its months"),
        (&["--below", "101"], 2, "from 0 to 100"),
        (&["--device", "12345"], 1, "no device 12345"),
        (&["--gateway", "attic"], 1, "recorded are: lobby"),
        (&["--output", "/nowhere/report.html"], 1, "/nowhere/report.html"),
    ] {
        let (found, stdout, stderr) = text(config, words);
        assert_eq!((found, &*stdout), (Some(code), ""), "{words:?}: {stderr}");
        assert!(stderr.contains(part), "{words:?}: {stderr}");
    }
    let (code, _, stderr) = text(config, &["--from", "1970-01-02", "--to", "1970-01-03"]);
    assert_eq!(code, Some(0), "{stderr}");
    let history = |words: &[&str]| {
        let mut command = bounded(PROGRAM);
        command.args(["history", "--last", "1h", "--device", &door, "--config"]).arg(config);
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let events = history(&["--json", "--event-type", "disconnected"]);
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    assert_eq!((&first["event_type"], &first["delivered"]), (&"disconnected".into(), &true.into()));
    let lines = history(&[]);
    let last = lines.lines().last().unwrap();
    assert!(last.contains(&format!("lobby  {door}  ")) && last.contains("connected"), "{lines}");
    let file = config.with_file_name("report.html");
    let words = ["--last", "1h", "--format", "html", "--output", file.to_str().unwrap()];
    assert_eq!(text(config, &words).1, "");
    assert!(std::fs::read_to_string(file).unwrap().ends_with("</html>\n"));
}

/// The same figures over HTTP, in pages, and wrong parameters.
async fn api(bridge: &Bridge, door: u32) {
    let ask = async |query: &str| {
        let (status, body) = bridge.get(&format!("/api/v1/availability?{query}")).await;
        (status, serde_json::from_str::<Value>(&body).unwrap_or(Value::String(body)))
    };
    let rows = |answer: &Value| answer["availability"].as_array().unwrap().clone();
    let (status, hours) = ask("from=3h&bucket=hour&tz=Asia/Kathmandu").await;
    assert_eq!((status, &hours["more"], &hours["next"]), (200, &false.into(), &Value::Null));
    assert_eq!(hours["time_zone"], "Asia/Kathmandu");
    let (from, to) = (hours["from"].as_str().unwrap(), hours["to"].as_str().unwrap());
    let same = format!("from={from}&to={to}&bucket=hour&tz=Asia/Kathmandu");
    let mut pages = Vec::new();
    let mut next = String::new();
    loop {
        let (_, page) = ask(&format!("{same}&limit=2&after={next}")).await;
        assert!(rows(&page).len() <= 2, "{page}");
        pages.extend(rows(&page));
        let Some(after) = page["next"].as_str() else { break };
        next = after.to_owned();
    }
    let keys = |rows: &[Value]| -> Vec<(Value, Value)> {
        rows.iter().map(|row| (row["device_id"].clone(), row["start"].clone())).collect()
    };
    assert_eq!(keys(&pages), keys(&rows(&hours)));
    pages.iter().for_each(adds_up);
    let (_, gateways) = ask("of=gateways").await;
    assert_eq!((&gateways["availability"][0]["outages"], rows(&gateways).len()), (&1.into(), 1));
    let (status, csv) = ask(&format!("device_id={door}&format=csv&sep=;")).await;
    let csv = csv.as_str().unwrap();
    assert!(status == 200 && csv.contains(&format!("lobby;{door};")), "{csv}");
    for (query, expected, parameter, part) in [
        ("limit=0", 400, "limit", "from 1 to 10000"),
        ("limit=1000000000", 400, "limit", "from 1 to 10000"),
        ("tz=Europe/Berln", 400, "tz", "Europe/Berlin"),
        ("from=1h&to=2h", 400, "to", "ends before it begins"),
        ("bucket=year", 400, "bucket", "month or day"),
        ("of=doors", 400, "of", "devices or gateways"),
        ("after=x", 400, "after", "of an answer"),
        ("device_id=12345", 404, "device_id", "no device 12345"),
        ("gateway=attic", 404, "gateway", "no gateway attic"),
    ] {
        let (status, problem) = ask(query).await;
        assert_eq!((status, &problem["parameter"]), (expected, &parameter.into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_elsewhere_is_read_with_a_token_over_https() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let ca = Ca::new();
    ca.write(folder.path(), "web", Certified::of(&["localhost"]));
    std::fs::write(file("token"), "# of reports\ns3cret\n").unwrap();
    std::fs::write(file("wrong"), "wrong\n").unwrap();
    let second = free_port();
    let keys = format!(
        "cert_file = {:?}\nkey_file = {:?}\ntoken_file = {:?}\nanonymous_from = []\n\
         metrics_listen = \"127.0.0.1:{second}\"",
        file("web.crt"),
        file("web.key"),
        file("token")
    );
    let setup = Setup::new(broker.port, "").http(&keys).gateway("lobby", &simulator, "");
    let bridge = setup.start();
    patiently("the bridge is ready", async {
        while crate::harness::bridge::get(second, "/readyz").await.0 != 200 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    let url = format!("https://localhost:{}", bridge.http_port);
    let ask = |words: &[&str]| {
        let mut command = bounded(PROGRAM);
        command.args(["report", "--last", "1h", "--format", "json"]).args(words);
        if !words.contains(&"--url") {
            command.args(["--url", &url]);
        }
        command.output().unwrap()
    };
    let (token, wrong, ca_file) = (file("token"), file("wrong"), ca.file());
    let [token, wrong, ca_file] = [&token, &wrong, &ca_file].map(|path| path.to_str().unwrap());
    let answered = ask(&["--token-file", token, "--ca-file", ca_file]);
    assert!(answered.status.success(), "{answered:?}");
    let report: Value = serde_json::from_slice(&answered.stdout).unwrap();
    assert_eq!(report["availability"].as_array().unwrap().len(), 1, "{report}");
    let no_file = folder.path().join("nothing");
    for (words, part) in [
        (&["--ca-file", ca_file][..], "--token-file names a file that contains a token"),
        (&["--ca-file", ca_file, "--token-file", wrong], "refuses the token of --token-file"),
        (&["--token-file", token], "not trusted; name that authority's file by --ca-file"),
        (&["--token-file", no_file.to_str().unwrap()], "--token-file: the file"),
        (&["--ca-file", no_file.to_str().unwrap()], "--ca-file: the file"),
        (&["--ca-file", token], "token"),
        (&["--url", &url.replace("https", "http")], "write https://"),
    ] {
        let refused = ask(words);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{words:?}: {stderr}");
        assert!(stderr.contains(part) && !stderr.contains("s3cret"), "{words:?}: {stderr}");
    }
    ca.write_itself(folder.path(), "web");
    eventually("the CA's certificate is refused", || {
        let refused = ask(&["--ca-file", ca_file, "--token-file", token]);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(!stderr.contains("OtherError"), "{stderr}");
        stderr.contains("http.cert_file").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_thousand_doors_is_below_a_megabyte() {
    let broker = Mosquitto::start("").await;
    let gateway = Gateway::start(1).await;
    let name = |id| format!("{id} = {{ name = \"Building 4, floor 12, emergency exit {id}\" }}\n");
    let doors: String = (1..=1_000).map(name).collect();
    let keys = format!("[gateways.lobby.devices]\n{doors}");
    let setup = Setup::new(broker.port, "");
    let setup = setup.gateway_at("lobby", gateway.address(), &gateway.ca_file(), &keys);
    let bridge = setup.start();
    bridge.is_ready().await;
    until(&bridge, "every door is recorded", |report| {
        report["availability"].as_array().unwrap().len() > 1_000
    })
    .await;
    let (code, page, _) = text(&bridge.config_file(), &["--last", "1h", "--format", "html"]);
    assert_eq!(code, Some(0));
    assert_eq!(page.matches("emergency exit").count(), 1_000);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

/// Aim: what reads a running bridge needs its address only. Method: without a file, and with one
/// whose gateway has a mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_is_read_without_a_valid_gateway_in_the_configuration() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[gateways.Lobby]\n").unwrap();
    let set = format!("http.listen=127.0.0.1:{}", bridge.http_port);
    let run = |words: &[&str]| bounded(PROGRAM).args(words).output().unwrap();
    for command in ["health", "report", "history"] {
        for source in [&[][..], &["--config", file.to_str().unwrap()]] {
            let output = run(&[&[command, "--set", &set], source].concat());
            assert!(output.status.success(), "{command} {source:?}: {output:?}");
        }
        let output = run(&[command, "--set", "http.listn=127.0.0.1:1"]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
        assert!(stderr.contains("did you mean http.listen?"), "{command}: {stderr}");
    }
}

/// Aim: a proxy that the environment names is not asked for this machine's loopback, which to the
/// proxy is its own. Method: a proxy that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_on_loopback_is_read_without_the_proxy_of_the_environment() {
    let broker = Mosquitto::start("").await;
    let simulator = crate::harness::simulator(1).await;
    let bridge = Setup::new(broker.port, "").gateway("lobby", &simulator, "").start();
    bridge.is_ready().await;
    let run = |words: &[&str]| {
        let mut command = bounded(PROGRAM);
        command.env("HTTP_PROXY", format!("http://127.0.0.1:{}", free_port()));
        let output = command.args(words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words:?}: {stderr}");
        stderr
    };
    let config = bridge.config_file();
    let config = ["--config", config.to_str().unwrap()];
    let url = |host: &str| format!("http://{host}:{}", bridge.http_port);
    for source in [config, ["--url", &url("127.0.0.1")], ["--url", &url("localhost")]] {
        for command in ["report", "history"] {
            let stderr = run(&[&[command, "--last", "1h"], &source[..]].concat());
            assert!(stderr.contains("reading from the bridge at"), "{source:?}: {stderr}");
        }
    }
    run(&[&["health"], &config[..]].concat());
}
