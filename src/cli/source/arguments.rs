//! Which bridge is queried.

use std::path::PathBuf;

/// Which bridge is read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// The bridge's web server, such as https://bridge.lan:9925 [default: http.listen of the
    /// configuration, else its state_dir]
    #[arg(long, value_name = "URL", value_parser = url)]
    pub(crate) url: Option<String>,
    /// The file with a token for the web server
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of the trusted authorities, instead of the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) ca_file: Option<PathBuf>,
}

fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['?', '#', '@', ' ']) => {
            Ok(text.to_owned())
        }
        _ => Err("write an address as in https://bridge.lan:9925".to_owned()),
    }
}
