//! The files of `gsdk2mqtt init`: those that it writes, and those that it is given.

use std::path::Path;

use tempfile::TempDir;

use super::{Site, init, mode};
use crate::harness::certificates::{Ca, Certified};
use crate::harness::mosquitto::Mosquitto;

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_way_is_reported_before_anything_is_written_unless_it_is_the_same() {
    let site = Site::new().await;
    let (folder, password) = (site.path("etc"), site.path("etc/mqtt-password"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&password, "old\n").unwrap();
    std::fs::write(site.path("secret"), "hunter2 ü\n").unwrap();
    let secret = site.path("secret").display().to_string();
    let login = ["--mqtt-username", "ann", "--mqtt-password-file", secret.as_str()];
    let ran = init(&site.changed("--mqtt-username", &login)).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
    for words in ["mqtt-password exists", "--overwrite", "nothing was written"] {
        assert!(ran.err.contains(words), "{words} in {}", ran.err);
    }
    assert_eq!(names(&folder), ["mqtt-password"], "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&password).unwrap(), "old\n");

    // The same contents are no conflict; the `ca.crt` may be the very file.
    std::fs::write(&password, "hunter2 ü\n").unwrap();
    std::fs::rename(site.path("ca.crt"), site.path("etc/lobby-ca.crt")).unwrap();
    let ca_file = site.path("etc/lobby-ca.crt").display().to_string();
    let options = site.changed("--mqtt-username", &login);
    let options: Vec<String> = options
        .into_iter()
        .map(|word| if word.ends_with("/ca.crt") { ca_file.clone() } else { word })
        .collect();
    let ran = init(&options).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(mode(&password), 0o600);
    assert_eq!(site.check().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_file_is_named_as_it_was_given_with_its_option() {
    let ca = Ca::new();
    let dir = TempDir::new().unwrap();
    ca.write(dir.path(), "server", Certified::of(&["127.0.0.1"]));
    let files = "certfile {dir}/server.crt\nkeyfile {dir}/server.key\n";
    let broker = Mosquitto::start_in(dir, files).await;
    let url = format!("mqtts://127.0.0.1:{}", broker.port);
    let site = Site { broker, ..Site::new().await };
    std::fs::write(site.path("no.pem"), "no certificate").unwrap();
    let no_pem = site.path("no.pem").display().to_string();
    let foreign = ca.file().display().to_string();
    let other = site.path("ca.crt").display().to_string();
    for (option, file, remedy) in [
        ("--ca-file", &no_pem, "correct --ca-file"),
        ("--ca-file", &foreign, "copy ca.crt"),
        ("--mqtt-ca-file", &no_pem, "correct --mqtt-ca-file"),
        ("--mqtt-ca-file", &other, "into --mqtt-ca-file"),
    ] {
        let broker = ["--mqtt-url", &url, option, file];
        let mut options = site.changed("--mqtt-url", &broker);
        if option == "--ca-file" {
            options = site.changed(option, &[option, file]);
        }
        let ran = init(&options).await;
        assert_eq!(ran.code, 1, "{}", ran.err);
        for words in [remedy, file, "nothing was written"] {
            assert!(ran.err.contains(words), "{words} in {}", ran.err);
        }
        let rest = ran.err.replace(file.as_str(), "");
        assert!(!rest.contains("ca_file") && !rest.contains("/.tmp"), "{}", ran.err);
    }
}
