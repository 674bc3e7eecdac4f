//! The files of `gsdk2mqtt init`: those that it writes, and those that it is given.

use std::path::Path;

use super::{Site, init, mode};

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
