//! The broker's login in `gsdk2mqtt init`: what is written is what `run` uses.

use super::{Site, init};
use crate::harness::simulator;

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
    let none = ["--mqtt-username", "ann", "--mqtt-password-file", ""];
    let ran = init(&anonymous.changed("--mqtt-username", &none)).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(!anonymous.text().contains("password_file"), "{}", anonymous.text());
    assert_eq!(anonymous.check().await.code, 0);
}
