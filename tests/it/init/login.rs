//! The broker's login in `gsdk2mqtt init`: what is written is what `run` uses.

use super::{Site, init};
use crate::harness::bridge::PROGRAM;
use crate::harness::simulator;
use crate::harness::terminal::Terminal;

const LOGIN: &str = "allow_anonymous false\npassword_file {dir}/passwords";

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_read_as_run_reads_it() {
    let site = Site::with(simulator(1).await, LOGIN).await;
    let secret = site.path("secret").display().to_string();
    let login = ["--mqtt-username", "ann", "--mqtt-password-file", secret.as_str()];
    // Editors on Windows write a byte order mark and CR LF.
    std::fs::write(&secret, "\u{feff}hunter2 ü\r\n").unwrap();
    let ran = init(&site.changed("--mqtt-username", &login)).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(site.check().await.code, 0);
    std::fs::remove_dir_all(site.path("etc")).unwrap();

    let anonymous = Site::new().await;
    for empty in ["", "\n", "\u{feff}"] {
        std::fs::write(&secret, empty).unwrap();
        let ran = init(&anonymous.changed("--mqtt-username", &login)).await;
        assert_eq!(ran.code, 1, "{empty:?}: {}", ran.err);
        for words in [&secret, "is empty", "--mqtt-password-file", "nothing was written"] {
            assert!(ran.err.contains(words), "{words} in {}", ran.err);
        }
        assert!(!anonymous.path("etc").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_is_no_password_and_an_edited_user_name_may_be_none() {
    let site = Site::new().await;
    let none = ["--mqtt-username", "ann", "--mqtt-password-file", ""];
    let ran = init(&site.changed("--mqtt-username", &none)).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!site.text().contains("password_file"), "{}", site.text());
    let checked = site.check().await;
    assert_eq!(checked.code, 0, "{}\n{}", checked.out, checked.err);
    std::fs::remove_dir_all(site.path("etc")).unwrap();

    let options = site.changed("--mqtt-username", &[]);
    let nowhere = "mqtt://127.0.0.1:1";
    let options: Vec<String> = options
        .iter()
        .map(|word| if word.starts_with("mqtt://") { nowhere } else { word }.to_owned())
        .collect();
    let line = format!("{PROGRAM} init {}", options.join(" "));
    let mut terminal = Terminal::run(120, "", &line);
    let url = format!("mqtt://127.0.0.1:{}", site.broker.port);
    terminal
        .answers(&[
            ("Search devices and name them?", Some("n")),
            ("User name at the broker", Some("ann")),
            ("Password at the broker", Some("")),
            ("nothing listens", None),
            ("URL of the MQTT broker", Some(url.as_str())),
            // Backspaces: the name of before can be edited.
            ("User name at the broker", Some("\u{7f}\u{7f}\u{7f}")),
        ])
        .await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, 0, "{shown}");
    assert!(!site.text().contains("username"), "{}", site.text());
    assert_eq!(site.check().await.code, 0);

    // Defaults are not tried again.
    let line = format!("{PROGRAM} init --yes --overwrite {}", options.join(" "));
    let (code, shown) = Terminal::run(120, "", &line).ends().await;
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("nothing listens"), "{shown}");
}
