//! Checks the state directory, and the web server's addresses and files. It creates neither the
//! directory nor its lock, which would belong to another user than the service's.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tokio::net::TcpListener;

use super::Finding;
use crate::certificate::Certificate;
use crate::config::{Loaded, Setting};
use crate::http::{self, FileContents};
use crate::net::{file_problem, shown_path};
use crate::store::{self, StateDir};

pub(crate) async fn examine(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    let holder = StateDir::holder(&config.state_dir);
    let mut findings = Vec::new();
    if let Some(holder) = &holder {
        findings.push(Finding::note(format!(
            "a bridge is running on {} ({holder}); it is not disturbed",
            config.state_dir.display()
        )));
    }
    findings.push(state_dir(&config.state_dir));
    let second = config.http.metrics_listen.map(|address| ("http.metrics_listen", address));
    for (key, address) in [("http.listen", config.http.listen)].into_iter().chain(second) {
        findings.push(listen(key, address, holder.is_some()).await);
    }
    // Those of gateways and broker are read by their checks.
    let FileContents { problems, warning, certificate } = http::file_contents(&config.http).await;
    findings.extend(problems.into_iter().map(Finding::fail));
    findings.extend(warning.map(Finding::warn));
    let certificate = certificate.as_ref().and_then(Certificate::read);
    findings.extend(certificate.map(|certificate| {
        let remedy = "put a new one in http.cert_file and its key in http.key_file";
        super::certificate("web server", &certificate, remedy).about("http.cert_file")
    }));
    findings
}

/// The settings whose files cannot be read, with the reason and the remedy. Each file is read once,
/// all at the same time, so that one deadline is enough for all.
pub(crate) async fn unusable_files<'a>(
    files: &[(&'a Setting, &'a Path)],
) -> Vec<(&'a Setting, String)> {
    let mut reads = HashMap::new();
    for (setting, path) in files {
        let (file, is_password) = (path.to_path_buf(), setting.key.ends_with("password_file"));
        reads
            .entry(*path)
            .or_insert_with(|| tokio::spawn(async move { file_problem(&file, is_password).await }));
    }
    let mut problems = HashMap::new();
    for (path, read) in reads {
        if let Ok(Some(problem)) = read.await {
            problems.insert(path, problem);
        }
    }
    let unusable = files.iter().filter_map(|(setting, path)| {
        let (problem, path) = (problems.get(path)?, shown_path(path));
        Some((*setting, format!("the file {path} {problem}, or name the right one")))
    });
    unusable.collect()
}

fn state_dir(path: &Path) -> Finding {
    let shown = path.display();
    let (metadata, place) = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => {
            let text = format!("state_dir {shown} is no directory; name another in state_dir");
            return Finding::fail(text).about("state_dir");
        }
        Ok(metadata) => (Some(metadata), path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.ancestors().skip(1).find(|parent| parent.is_dir());
            (None, parent.unwrap_or(Path::new("/")))
        }
        Err(error) => return unwritable(path, &error),
    };
    if let Err(error) = try_to_write(place) {
        return unwritable(path, &error);
    }
    if let Err(error) = store::check_files(path) {
        let text = format!("state_dir {shown} cannot be used: {error}; {}", error.remedy());
        return Finding::fail(text).about("state_dir");
    }
    let user = fs::metadata("/proc/self").map(|process| process.uid()).ok();
    match (&metadata, user) {
        (Some(metadata), Some(user)) if metadata.uid() != user => Finding::warn(format!(
            "state_dir {shown} belongs to the user {}, and this check runs as {user}; run the \
             check as the user of the service to try that user's rights",
            metadata.uid()
        ))
        .about("state_dir"),
        (Some(_), _) => Finding::ok(format!("state_dir {shown} can be written")),
        (None, _) => Finding::ok(format!("state_dir {shown} will be created at the first start")),
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Finding {
    let shown = path.display();
    Finding::fail(format!(
        "state_dir {shown} cannot be written ({error}); give it and everything in it to the user \
         of the service (chown -R, StateDirectory= under systemd), or name another in state_dir"
    ))
    .about("state_dir")
}

/// Writes a small file and removes it.
fn try_to_write(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".check-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&probe)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    fs::remove_file(&probe)?;
    written
}

async fn listen(key: &str, address: SocketAddr, is_running: bool) -> Finding {
    match TcpListener::bind(address).await {
        Ok(_) => Finding::ok(format!("{key} {address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_running => {
            Finding::note(format!("{key} {address} is in use, as by the running bridge"))
        }
        Err(error) => {
            let remedy = http::listen_remedy(&error, address, key);
            Finding::fail(format!("{key} {address} cannot be used ({error}); {remedy}")).about(key)
        }
    }
}
