//! The files of the web server, tokens and certificate: read at the start, and again when they
//! change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{self, ServerConfig};

use super::tokens::{TOKEN_LEN_GOOD, Tokens};
use crate::config::Http;
use crate::net::{ReadError, certificates, private_key, read_file, shown_path};

/// How often the files are read.
const READ_EVERY: Duration = Duration::from_secs(3);

/// Reads the files, and gives what is in them to the listeners.
#[derive(Debug)]
pub(crate) struct Files {
    token_file: Option<PathBuf>,
    /// The certificate chain and its private key.
    certificate: Option<(PathBuf, PathBuf)>,
    tokens: watch::Sender<Tokens>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    problems: watch::Sender<Vec<String>>,
    /// What the files had when they were last read.
    token_text: Vec<u8>,
    certificate_text: (Vec<u8>, Vec<u8>),
}

impl Files {
    /// `problems` gets why files cannot be used, with what to do.
    pub(crate) fn new(http: &Http, problems: watch::Sender<Vec<String>>) -> Self {
        Self {
            token_file: http.token_file.clone(),
            certificate: http.cert_file.clone().zip(http.key_file.clone()),
            tokens: watch::Sender::new(Tokens::default()),
            tls: watch::Sender::new(None),
            problems,
            token_text: Vec::new(),
            certificate_text: (Vec::new(), Vec::new()),
        }
    }

    /// The tokens; `None` where no file is configured.
    pub(crate) fn tokens(&self) -> Option<watch::Receiver<Tokens>> {
        self.token_file.as_ref().map(|_| self.tokens.subscribe())
    }

    /// The settings of TLS; `None` where no certificate is configured.
    pub(crate) fn tls(&self) -> Option<watch::Receiver<Option<Arc<ServerConfig>>>> {
        self.certificate.as_ref().map(|_| self.tls.subscribe())
    }

    /// Reads the files periodically.
    pub(crate) async fn follow(mut self) {
        if self.token_file.is_none() && self.certificate.is_none() {
            return;
        }
        loop {
            sleep(READ_EVERY).await;
            self.read().await;
        }
    }

    /// Reads the files once.
    pub(crate) async fn read(&mut self) {
        let results = [self.read_tokens().await, self.read_certificate().await];
        let problems: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        self.problems.send_if_modified(|before| {
            for problem in problems.iter().filter(|problem| !before.contains(problem)) {
                tracing::warn!(problem, "web server file cannot be used");
            }
            let changed = *before != problems;
            *before = problems;
            changed
        });
    }

    /// A file that cannot be read has no tokens.
    async fn read_tokens(&mut self) -> Result<(), String> {
        let Some(path) = &self.token_file else { return Ok(()) };
        let read = read_file(path).await.map_err(|error| unread("http.token_file", path, &error));
        let (bytes, problem) = match read {
            Ok(bytes) => (bytes, Ok(())),
            Err(problem) => (Vec::new(), Err(problem)),
        };
        let tokens = Tokens::parse(&String::from_utf8_lossy(&bytes));
        let is_pem = tokens.is_none();
        if bytes != self.token_text {
            let tokens = tokens.unwrap_or_default();
            if !tokens.is_empty() {
                tracing::info!("web server tokens read");
            }
            if tokens.short() > 0 {
                let (count, length) = (tokens.short(), TOKEN_LEN_GOOD);
                tracing::warn!(count, length, "web server has short tokens; make longer ones");
            }
            self.tokens.send_replace(tokens);
            self.token_text = bytes;
        }
        problem?;
        if is_pem {
            let problem = "holds a certificate or a key, not tokens; write one token a line";
            return Err(unusable("http.token_file", path, problem));
        }
        if self.tokens.borrow().is_empty() {
            return Err(unusable("http.token_file", path, "has no token; write one a line"));
        }
        Ok(())
    }

    /// Where the files cannot be used, the certificate that was read before stays.
    async fn read_certificate(&mut self) -> Result<(), String> {
        let Some((cert, key)) = &self.certificate else { return Ok(()) };
        let chain = read_file(cert).await;
        let chain = chain.map_err(|error| unread("http.cert_file", cert, &error))?;
        let secret = read_file(key).await;
        let secret = secret.map_err(|error| unread("http.key_file", key, &error))?;
        let text = (chain, secret);
        if text != self.certificate_text || self.tls.borrow().is_none() {
            let config = server_config(cert, key, &text.0, &text.1)?;
            self.tls.send_replace(Some(Arc::new(config)));
            self.certificate_text = text;
            tracing::info!("web server certificate read");
        }
        Ok(())
    }
}

/// What the files hold.
pub(crate) struct FileContents {
    /// Why they cannot be used, with what to do.
    pub(crate) problems: Vec<String>,
    /// What is not good about them, with what to do.
    pub(crate) warning: Option<String>,
    /// The certificate of the web server itself.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// Reads the files once.
pub(crate) async fn file_contents(http: &Http) -> FileContents {
    let problems = watch::Sender::default();
    let mut files = Files::new(http, problems.clone());
    files.read().await;
    let short = files.tokens.borrow().short();
    let warning = (short > 0).then(|| {
        let noun = if short == 1 { "token" } else { "tokens" };
        format!(
            "http.token_file has {short} {noun} shorter than {TOKEN_LEN_GOOD} characters, which \
             could be guessed; make long ones (openssl rand -hex 32)"
        )
    });
    let chain = certificates(&files.certificate_text.0).unwrap_or_default();
    let certificate = chain.into_iter().next();
    FileContents { problems: problems.borrow().clone(), warning, certificate }
}

/// Why a file cannot be read, and what to do.
fn unread(key: &str, path: &Path, error: &ReadError) -> String {
    format!("the file {} {error}; {}, or correct {key}", shown_path(path), error.remedy())
}

/// What is wrong with a file, and what to do.
fn unusable(key: &str, path: &Path, problem: impl std::fmt::Display) -> String {
    format!("the file {} {problem}; put it there, or correct {key}", shown_path(path))
}

fn server_config(
    cert: &Path,
    key: &Path,
    chain: &[u8],
    secret: &[u8],
) -> Result<ServerConfig, String> {
    let chain = certificates(chain).map_err(|error| unusable("http.cert_file", cert, error))?;
    let of_key = |problem: String| unusable("http.key_file", key, problem);
    let secret = private_key(secret).map_err(of_key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, secret));
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            of_key(format!("is not the key of the certificate in {}", cert.display()))
        }
        error => of_key(format!("cannot be used with its certificate ({error})")),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
