//! Output for packagers: completions and manual pages.

use std::process::Output;

use crate::harness::bounded;
use crate::harness::bridge::PROGRAM;

fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = bounded(PROGRAM).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn bash_completes_commands_and_values() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("gsdk2mqtt");
    std::fs::write(&script, run(&["completions", "bash"]).1).unwrap();
    for (words, at, expected) in [
        ("gsdk2mqtt ctl ac", 2, "accept-filter"),
        ("gsdk2mqtt ctl mode set de", 4, "device_to_server"),
        ("gsdk2mqtt ctl search --js", 3, "--json"),
        ("gsdk2mqtt comp", 1, "completions"),
    ] {
        let last = words.rsplit(' ').next().unwrap();
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _gsdk2mqtt gsdk2mqtt {last:?} x; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let out = bounded("bash").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), expected, "{words}: {out:?}");
    }
    for (shell, mark) in [("zsh", "#compdef gsdk2mqtt"), ("fish", "complete -c gsdk2mqtt")] {
        let (code, out, _) = run(&["completions", shell]);
        assert!(code == Some(0) && out.contains(mark), "{shell}: {out}");
    }
    let (code, _, err) = run(&["completions", "tcsh"]);
    assert!(code == Some(2) && err.contains("bash"), "{err}");
}

#[test]
fn every_command_has_a_manual_page() {
    let head = |command| format!(".TH {command} 1  \"gsdk2mqtt {}\"", env!("CARGO_PKG_VERSION"));
    let (code, out, _) = run(&["man", "ctl", "accept-filter", "add"]);
    assert!(code == Some(0) && out.contains(&head("gsdk2mqtt-ctl-accept-filter-add")), "{out}");
    assert!(run(&["man"]).1.contains(&head("gsdk2mqtt")));
    let (code, _, err) = run(&["man", "ctl", "reboot"]);
    assert!(
        code == Some(2) && err.contains("\"reboot\"") && err.contains("accept-filter"),
        "{err}"
    );
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let (code, _, err) = run(&["man", "--dir", folder.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{err}");
    for page in ["gsdk2mqtt", "gsdk2mqtt-run", "gsdk2mqtt-ctl-ssl-enable", "gsdk2mqtt-simulate"] {
        let text = std::fs::read_to_string(folder.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(&head(page)) && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let (code, _, err) = run(&["man", "--dir", "/dev/null/man1"]);
    assert!(
        code == Some(1) && err.contains("cannot write manual pages into /dev/null/man1"),
        "{err}"
    );
}
