//! `gsdk2mqtt ctl` in a real terminal (that of `script`): prompts, colours, width.

use super::ctl::Cli;
use crate::harness::bridge::PROGRAM;
use crate::harness::eventually;
use crate::harness::terminal::Terminal;
use gsdk2mqtt::simulator::Fault;

/// Runs `ctl` in a terminal of this width, with these variables.
fn ctl(cli: &Cli, columns: u16, variables: &str, words: &str) -> Terminal {
    let config = cli.dir.path().join("config.toml");
    let command = format!("{PROGRAM} ctl --config {} {words}", config.display());
    Terminal::run(columns, variables, &command)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_for_every_device_need_a_confirmation() {
    let cli = Cli::new(3).await;
    let control = cli.simulator.control();
    for (words, method) in [
        ("disconnect-all", "DisconnectAll"),
        ("accept-filter allow-all", "SetAcceptFilter"),
        ("accept-filter set --allow-all", "SetAcceptFilter"),
    ] {
        for no in ["n\n", "\n", "what?\n"] {
            let mut terminal = ctl(&cli, 100, "", words);
            terminal.shows("Continue? [y/N]").await;
            terminal.types(no);
            let (code, shown) = terminal.ends().await;
            assert_eq!(code, 1, "{shown}");
            assert!(shown.contains("nothing was done"), "{shown}");
            assert_eq!(control.calls().get(method), None, "{words} {no:?}");
        }
    }
    for (words, method) in
        [("disconnect-all", "DisconnectAll"), ("accept-filter allow-all", "SetAcceptFilter")]
    {
        let mut terminal = ctl(&cli, 100, "", words);
        terminal.shows("Continue? [y/N]").await;
        terminal.types("y\n");
        assert_eq!(terminal.ends().await.0, 0);
        assert_eq!(control.calls().get(method), Some(&1), "{words}");
    }
    // There is no prompt with `--yes`, nor for removals.
    for words in ["disconnect-all --yes", "accept-filter allow-all off"] {
        let (code, shown) = ctl(&cli, 100, "", words).ends().await;
        assert_eq!(code, 0, "{shown}");
        assert!(!shown.contains("Continue?"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_shows_its_progress_and_a_table_that_fits() {
    let cli = Cli::new(10).await;
    let terminal = ctl(&cli, 80, "", "search --wait 1.5");
    terminal.shows("searching the subnet: 0 of 1.5 s").await;
    terminal.shows("searching the subnet: 1 of 1.5 s").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    // The line of progress is erased before the answer is printed.
    let (_, table) = shown.rsplit_once(" \r").unwrap();
    assert!(table.starts_with("\x1b[1mID\x1b[0m  "), "{table:?}");
    let bare = table.replace("\x1b[1m", "").replace("\x1b[0m", "");
    assert!(bare.lines().all(|line| line.len() <= 80), "{bare}");
    assert!(bare.contains("no room for SERVER"), "{bare}");
    for device in cli.simulator.control().devices() {
        assert!(bare.contains(&device.id.to_string()), "{bare}");
    }
    let (_, shown) = ctl(&cli, 40, "", "search --wait 0.1").ends().await;
    let fits = shown.lines().all(|line| left_on_screen(line).len() <= 40);
    assert!(fits && shown.contains("mode: server_to_device"), "{shown}");
    let (_, shown) = ctl(&cli, 200, "", "search --wait 0.1").ends().await;
    assert!(shown.contains("SERVER") && !shown.contains("no room"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_interrupted_is_reported_as_unknown() {
    let cli = Cli::new(3).await;
    let control = cli.simulator.control();
    let (id, ip) = (control.devices()[0].id, control.devices()[0].ip);
    control.apply_fault(&Fault::Manage);
    eventually("a device is connected", || {
        control.managed().iter().any(|row| row.device_id == id && row.status == 1).then_some(())
    })
    .await;
    // Its steps until then are shown.
    let delay = |ms| control.apply_fault(&Fault::latency(std::time::Duration::from_millis(ms)));
    delay(300);
    let mut terminal = ctl(&cli, 200, "", &format!("mode set device_to_server {id}"));
    eventually("the mode is set", || {
        control.calls().contains_key("SetConnectionModeMulti").then_some(())
    })
    .await;
    delay(60_000);
    terminal.types("\x03");
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("filter_added"), "{shown}");
    assert!(shown.contains("see `devices` and `accept-filter get`"), "{shown}");

    for (words, remedy) in [
        (format!("connect {ip}"), "see `devices`"),
        ("accept-filter add 7".to_owned(), "see `accept-filter get`"),
        (format!("slaves set {id} --rs485 7"), "see `slaves get`"),
    ] {
        let mut terminal = ctl(&cli, 100, "", &words);
        terminal.shows("waiting for the gateway: 1 s").await;
        terminal.types("\x03");
        let (code, shown) = terminal.ends().await;
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains("what was done is not known") && shown.contains(remedy), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_and_can_be_disabled() {
    let cli = Cli::new(3).await;
    let control = cli.simulator.control();
    control.apply_fault(&Fault::Manage);
    eventually("a device is connected", || {
        control.managed().iter().any(|row| row.status == 1).then_some(())
    })
    .await;
    let green = "\x1b[32mtcp_connected\x1b[0m";
    let (_, shown) = ctl(&cli, 100, "", "devices").ends().await;
    assert!(shown.contains(green), "{shown:?}");
    for variables in ["NO_COLOR=1", "TERM=dumb"] {
        let (_, shown) = ctl(&cli, 100, variables, "devices").ends().await;
        assert!(shown.contains("tcp_connected") && !shown.contains("\x1b["), "{shown:?}");
    }
    let (_, out, err) = cli.run("devices").await;
    assert!(out.contains("tcp_connected"), "{out}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "{out:?} {err:?}");
    let mut terminal = ctl(&cli, 100, "", "watch");
    terminal.shows(green.trim_end_matches("\x1b[0m")).await;
    // Ctrl-C, as the terminal sends it.
    terminal.types("\x03");
    assert_eq!(terminal.ends().await.0, 0);
}

/// The final content of a line in a terminal: the text after the last carriage return.
fn left_on_screen(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().trim_end()
}

/// A line with every moment as `<time>`.
fn timeless(line: &str) -> String {
    let is_moment = |word: &&str| word.len() == 24 && word.contains('T') && word.ends_with('Z');
    let moment = line.split(' ').find(is_moment).map(ToOwned::to_owned);
    moment.map_or_else(|| line.to_owned(), |moment| line.replace(&moment, "<time>"))
}

/// Aim: the session in docs/ctl.md is true. Method: its configuration, its
/// commands one after the other, each after the gateway has settled, in a terminal of the
/// documented width.
#[tokio::test(flavor = "multi_thread")]
async fn the_session_in_the_documentation_is_true() {
    let cli = Cli::new(10).await;
    let control = cli.simulator.control();
    let text = std::fs::read_to_string("docs/ctl.md").unwrap();
    let (_, section) = text.split_once("## Example session").unwrap();
    let mut blocks = section.split("```").skip(1).step_by(2);
    let config = blocks.next().unwrap().strip_prefix("toml\n").unwrap();
    let ca_file = format!("{:?}", cli.dir.path().join("ca.crt"));
    let config = config
        .replace("\"127.0.0.1:4000\"", &format!("\"{}\"", cli.simulator.address()))
        .replace("\"ca.crt\"", &ca_file);
    std::fs::write(cli.dir.path().join("config.toml"), config).unwrap();
    let session = blocks.next().unwrap().trim();
    let steps: Vec<&str> = session.split("$ gsdk2mqtt ctl ").skip(1).collect();
    assert!(steps.len() > 10, "{session}");
    for step in steps {
        let (words, expected) = step.split_once('\n').unwrap();
        eventually("all devices are where they belong", || {
            let (managed, pending) = (control.managed(), control.pending());
            let at_rest = managed.iter().all(|row| matches!(row.status, 1 | 2));
            let dialling = |device: &gsdk2mqtt::simulator::SiteDevice| {
                device.mode == gsdk2mqtt::simulator::DialMode::DeviceToServer
            };
            let is_pending = |device: &gsdk2mqtt::simulator::SiteDevice| {
                managed.iter().any(|row| row.device_id == device.id)
                    || pending.iter().any(|row| row.device_id == device.id)
                        && !control.filter().device_i_ds.contains(&device.id)
            };
            let mut building = control.devices().into_iter();
            (at_rest && building.all(|device| !dialling(&device) || is_pending(&device)))
                .then_some(())
        })
        .await;
        let mut terminal = ctl(&cli, 110, "NO_COLOR=1", words);
        if expected.contains("[y/N]") {
            terminal.shows("[y/N]").await;
            terminal.types("y\n");
        }
        let (_, shown) = terminal.ends().await;
        let lines = |text: &str| -> Vec<String> {
            text.lines().map(|line| timeless(left_on_screen(line))).collect()
        };
        assert_eq!(lines(&shown), lines(expected), "{words}");
    }
}
