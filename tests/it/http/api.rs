//! The JSON API as its clients see it: lists, filters, pages, CSV, problems, validators.

use std::collections::BTreeSet;

use gsdk2mqtt::simulator::{Fault, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::bridge::{Bridge, Setup};
use crate::harness::mosquitto::Mosquitto;
use crate::harness::{LOOK_EVERY, patiently, simulator};

/// A site of one gateway with three doors, with unusual names.
struct Site {
    bridge: Bridge,
    gateway: Simulator,
    ids: Vec<u32>,
    _broker: Mosquitto,
}

impl Site {
    async fn start() -> Self {
        let (broker, gateway) = (Mosquitto::start("").await, simulator(3).await);
        let mut ids: Vec<u32> =
            gateway.control().devices().iter().map(|device| device.id).collect();
        ids.sort_unstable();
        let names = format!(
            "[gateways.lobby.devices]\n{} = {{ name = \"=HYPERLINK(\\\"x\\\")\" }}\n{} = {{ name = \
             \"<b>Front; door</b>\" }}\n7 = {{ name = \"Never seen\" }}\n",
            ids[0], ids[1]
        );
        let bridge = Setup::new(broker.port, "").gateway("lobby", &gateway, "").lines(&names);
        let bridge = bridge.start();
        bridge.is_ready().await;
        Self { bridge, gateway, ids, _broker: broker }
    }

    async fn ask(&self, path: &str, headers: &str) -> Answer {
        Answer::of(&self.bridge, "GET", &format!("/api/v1/{path}"), headers).await
    }

    /// A successful JSON answer.
    async fn json(&self, path: &str) -> Value {
        let answer = self.ask(path, "").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// A device loses its connection and reconnects, which is recorded.
    async fn make_events(&self, id: u32) {
        self.gateway.control().apply_fault(&Fault::Drop { devices: id.into() });
        patiently("the device is back, as recorded", async {
            loop {
                let events = self.json(&format!("events?device_id={id}&order=desc&limit=1")).await;
                if events["events"][0]["event_type"] == "connected" {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn of(bridge: &Bridge, method: &str, path: &str, headers: &str) -> Self {
        patiently(path, async {
            let mut stream = TcpStream::connect(("127.0.0.1", bridge.http_port)).await.unwrap();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Self { status, head: head.to_owned(), body: body.to_owned() }
        })
        .await
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn ids_of(devices: &Value) -> Vec<u64> {
    let devices = devices["devices"].as_array().unwrap();
    devices.iter().map(|device| device["device_id"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bridge_gateways_and_devices_are_as_published() {
    let site = Site::start().await;
    let bridge = site.json("bridge").await;
    assert_eq!(bridge["bridge"], "bridge");
    assert_eq!((&bridge["ready"], &bridge["degraded"]), (&json!(true), &json!([])));
    assert_eq!(bridge["mqtt_connected"], true);
    assert!(bridge["history"]["events"].is_u64() && bridge["time_zone"].is_string(), "{bridge}");
    assert_eq!(site.json("masters").await, json!({"masters": []}));
    let gateways = site.json("gateways").await;
    assert_eq!(gateways["gateways"][0], site.json("gateways/lobby").await);
    assert_eq!(gateways["gateways"][0]["state"], "online");
    assert_eq!(gateways["gateways"][0]["devices"], 4);

    let all = site.json("devices").await;
    assert_eq!(
        (&all["total"], &all["more"], &all["next"]),
        (&json!(4), &json!(false), &json!(null))
    );
    let expected: Vec<u64> =
        [7].into_iter().chain(site.ids.iter().map(|id| (*id).into())).collect();
    assert_eq!(ids_of(&all), expected);
    let one = site.json(&format!("devices/lobby/{}", site.ids[0])).await;
    assert_eq!(all["devices"][1], one);
    assert_eq!((&one["connected"], &one["seq"]), (&json!(true), &json!(0)));

    for (query, count) in [
        ("connected=true", 3),
        ("connected=false", 1),
        ("connected=unknown", 0),
        ("connected=true,false", 4),
        ("connected=TRUE&connected=false", 4),
        ("expected=true&connected=false", 1),
        ("expected=false", 0),
        ("expected=true,false", 4),
        ("q=front", 1),
        ("q=+FRONT%3B", 1),
        ("q=lobby", 4),
        ("q=%3Cb%3E", 1),
        ("q=nothing", 0),
        ("gateway=lobby", 4),
        ("device_id=7", 1),
        ("device_id=7,8", 1),
        ("q=&gateway=&limit=", 4),
    ] {
        let found = site.json(&format!("devices?{query}")).await;
        assert_eq!(found["total"], count, "{query}: {found}");
        assert_eq!(found["devices"].as_array().unwrap().len(), count, "{query}");
    }
    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let page = site.json(&format!("devices?limit=3&after={after}")).await;
        assert_eq!(page["total"], 4);
        read.extend(ids_of(&page));
        if page["more"] == false {
            break;
        }
        after = page["next"].as_str().unwrap().replace('/', "%2F");
    }
    assert_eq!(read, expected, "each device is on one page");

    // Dates are in the requested zone, and the answer is not for other origins.
    let answer = site.ask("devices", "Origin: https://evil.example\r\n").await;
    assert!(!answer.head.to_lowercase().contains("access-control"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_paged_both_ways_each_once() {
    let site = Site::start().await;
    site.make_events(site.ids[0]).await;
    site.make_events(site.ids[1]).await;
    let all = site.json("events?limit=10000").await;
    let events = all["events"].as_array().unwrap();
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.len() >= 5 && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(events.iter().any(|event| event["event_type"] == "reachable"), "{all}");
    assert_eq!(all["next"].as_u64(), ids.last().copied());
    assert!(all.get("gap").is_none() && all["more"] == false, "{all}");

    for (order, parameter) in [("asc", "after_id"), ("desc", "before_id")] {
        let (mut read, mut next) = (Vec::new(), String::new());
        loop {
            let page = site.json(&format!("events?order={order}&limit=2&from=0{next}")).await;
            let page_events = page["events"].as_array().unwrap().clone();
            read.extend(page_events.iter().map(|event| event["id"].as_u64().unwrap()));
            if page["more"] == false {
                break;
            }
            assert_eq!(page_events.len(), 2);
            next = format!("&{parameter}={}", page["next"]);
        }
        if order == "desc" {
            read.reverse();
        }
        assert_eq!(read, ids, "{order}");
    }
    let between = format!("events?after_id={}&before_id={}", ids[0], ids[3]);
    assert_eq!(site.json(&between).await["events"], json!([events[1], events[2]]));
    let drops = site.json("events?event_type=Disconnected,connected&gateway=lobby").await;
    assert_eq!(drops["events"].as_array().unwrap().len(), 4, "{drops}");
    let first = site.json(&format!("events?device_id={}", site.ids[0])).await;
    let first = first["events"].as_array().unwrap();
    assert!(first.len() >= 2 && first.iter().all(|it| it["device_id"] == site.ids[0]), "{first:?}");
    let old = site.json("events?after_id=1").await;
    assert_eq!(old["events"], all["events"]);
    assert!(old["gap"]["oldest_at"].is_string(), "an id of an earlier state directory: {old}");
    // The same where the clock was ahead then.
    let ahead = site.json(&format!("events?after_id={}", ids[ids.len() - 1] + 1_000_000_000)).await;
    assert_eq!((&ahead["events"], &ahead["gap"]), (&old["events"], &old["gap"]), "{ahead}");
    assert_eq!(ahead["next"], old["next"]);
    for none in ["events?to=0", "events?device_id=8", "events?from=2099-01", "events?before_id=1"] {
        let page = site.json(none).await;
        assert_eq!((&page["events"], &page["more"]), (&json!([]), &json!(false)), "{none}");
    }
    assert!(!site.json("events?tz=Asia/Kathmandu&from=2020-01").await["events"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_for_spreadsheets() {
    let site = Site::start().await;
    site.make_events(site.ids[0]).await;
    let answer = site.ask("devices?format=csv", "").await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    let by_header = site.ask("devices", "Accept: text/csv, */*;q=0.1\r\n").await;
    assert_eq!(by_header.body, answer.body);
    let text = answer.body.strip_prefix('\u{feff}').expect("a byte order mark");
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("bridge,gateway,device_id,name,connected,status,"), "{text}");
    assert_eq!((lines.len(), lines[5]), (6, ""), "{text}");
    assert!(lines[1].contains(",7,Never seen,false,"), "{text}");
    assert!(
        lines[2].contains(",\"'=HYPERLINK(\"\"x\"\")\",true,tls_connected,")
            || lines[2].contains(",\"'=HYPERLINK(\"\"x\"\")\",true,tcp_connected,"),
        "{text}"
    );
    let answer = site.ask("devices?format=csv&sep=;&q=front", "").await;
    assert!(answer.body.contains(";\"<b>Front; door</b>\";true;"), "{answer:?}");
    let period = "from=2020-01-01T00:00:00Z&to=2020-01-01T00:00:01.5Z";
    for (separator, period_s) in [(",", ",1.5,"), (";", ";1,5;")] {
        let path = format!("availability?{period}&format=csv&sep={separator}");
        let answer = site.ask(&path, "").await;
        assert!(answer.body.contains(period_s), "{answer:?}");
    }

    let answer = site.ask("events?format=csv&limit=1", "").await;
    let link = answer.header("link").unwrap();
    let next = link.split(['<', '>']).nth(1).unwrap();
    let page = site.ask(&format!("events{next}"), "").await;
    assert_eq!(page.status, 200);
    let first_id = |answer: &Answer| {
        let line = answer.body.split("\r\n").nth(1).unwrap().to_owned();
        line.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(first_id(&page) > first_id(&answer), "{page:?}");
    assert!(site.ask("gateways/lobby?format=csv", "").await.body.contains("\r\nbridge,lobby,"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_is_a_problem_that_names_it() {
    let site = Site::start().await;
    for (path, status, parameter) in [
        ("devices?limit=0", 400, json!("limit")),
        ("events?limit=1000000000", 400, json!("limit")),
        ("devices?colour=red", 400, json!("colour")),
        ("devices?connected=maybe", 400, json!("connected")),
        ("devices?device_id=x", 400, json!("device_id")),
        ("devices?gateway=annex", 404, json!("gateway")),
        ("devices?gateway=No!", 400, json!("gateway")),
        ("devices?after=here", 400, json!("after")),
        ("devices?format=xml", 400, json!("format")),
        ("devices?sep=;", 400, json!("sep")),
        ("devices?token=s3cret", 400, json!("token")),
        ("devices/lobby/8", 404, json!("device_id")),
        ("devices/lobby/x", 404, json!("device_id")),
        ("devices/annex/7", 404, json!("gateway")),
        ("devices/lobby/7?limit=1", 400, json!("limit")),
        ("gateways/annex", 404, json!("gateway")),
        ("gateways/%FF", 400, json!("gateway")),
        ("events?from=2h&to=3h", 400, json!("to")),
        ("events?from=soon", 400, json!("from")),
        ("availability?from=2026", 400, json!("from")),
        ("events?tz=Europe/Berln", 400, json!("tz")),
        ("events?order=up", 400, json!("order")),
        ("events?event_type=connected,foo", 400, json!("event_type")),
        ("events?gateway=lobby,annex", 404, json!("gateway")),
        ("availability?gateway=annex", 404, json!("gateway")),
        ("availability?of=gateways&device_id=7", 400, json!("device_id")),
        ("events?after_id=-1", 400, json!("after_id")),
        ("events?after_id=1&after_id=2", 400, json!("after_id")),
        ("events/stream?limit=5", 400, json!("limit")),
        ("bridge?x=1", 400, json!("x")),
        ("nothing", 404, json!(null)),
        ("", 404, json!(null)),
        ("../v2/devices", 404, json!(null)),
    ] {
        let answer = site.ask(path, "").await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["status"], status, "{path}");
        assert_eq!(problem["parameter"], parameter, "{path}: {problem}");
        let fields: BTreeSet<&str> =
            problem.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = ["code", "detail", "parameter", "status", "title", "type"];
        assert_eq!(fields, BTreeSet::from(expected), "{path}");
        assert!(!answer.body.contains("s3cret"), "{answer:?}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = Answer::of(&site.bridge, method, "/api/v1/devices", "").await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method}");
    }
    for (query, expected) in
        [("tz=Europe/Berln", "Europe/Berlin"), ("event_type=reachble", "reachable")]
    {
        let near = site.ask(&format!("events?{query}"), "").await.body;
        assert!(near.contains(&format!("{expected}\\\"?")), "{near}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_answer_gets_304_and_head_has_no_body() {
    let site = Site::start().await;
    patiently("nothing changes by itself any more", async {
        loop {
            let (events, devices) = (site.json("events").await, site.json("devices").await);
            let all =
                |rows: &Value, is: fn(&Value) -> bool| rows.as_array().unwrap().iter().all(is);
            if all(&events["events"], |event| event["delivered"] == true)
                && all(&devices["devices"], |row| {
                    row["managed"] == false || row["model"] != Value::Null
                })
            {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    for path in ["devices", "gateways", "events", "devices?format=csv", "openapi.json"] {
        let answer = site.ask(path, "").await;
        let tag = answer.header("etag").unwrap().to_owned();
        let again = site.ask(path, &format!("If-None-Match: {tag}\r\n")).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}: {again:?}");
        assert_eq!(again.header("etag"), Some(tag.as_str()), "{path}");
        let other = site.ask(path, "If-None-Match: \"other\"\r\n").await;
        assert_eq!(other.status, 200, "{path}");
        let head = Answer::of(&site.bridge, "HEAD", &format!("/api/v1/{path}"), "").await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}: {head:?}");
        assert_eq!(head.header("etag"), Some(tag.as_str()), "{path}");
    }
    let before = site.ask("devices", "").await.header("etag").unwrap().to_owned();
    site.make_events(site.ids[0]).await;
    let changed = site.ask("devices", &format!("If-None-Match: {before}\r\n")).await;
    assert_eq!(changed.status, 200, "{changed:?}");
}
