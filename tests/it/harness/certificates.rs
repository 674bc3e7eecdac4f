//! Certificates as gateways make them, and wrong ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion, version::TLS12, version::TLS13,
};

/// A private CA and the folder of its `ca.crt`.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// The TLS identity of a server.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

fn named(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// A certificate to be signed.
pub(crate) struct Certified(CertificateParams);

impl Certified {
    /// For these names.
    pub(crate) fn of(names: &[&str]) -> Self {
        Self(named("broker", names))
    }

    /// The same, valid for this number of days.
    pub(crate) fn ending_in(names: &[&str], days: i64) -> Self {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let day = end.strftime("%Y-%m-%d").to_string();
        let part = |at: usize| day.split('-').nth(at).unwrap().parse::<u16>().unwrap();
        let small = |at: usize| u8::try_from(part(at)).unwrap();
        let mut params = named("broker", names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(part(0).into(), small(1), small(2));
        Self(params)
    }

    /// The same, but expired.
    pub(crate) fn expired(names: &[&str]) -> Self {
        let mut params = named("broker", names);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        Self(params)
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::called("G-SDK CA")
    }

    pub(crate) fn called(common_name: &str) -> Self {
        let mut params = named(common_name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for these names.
    pub(crate) fn for_names(&self, names: &[&str]) -> Shown {
        self.sign(named("gateway", names))
    }

    /// A certificate valid between the first days of two years.
    pub(crate) fn valid_between(&self, first: i32, last: i32) -> Shown {
        let mut params = named("gateway", &["127.0.0.1"]);
        params.not_before = date_time_ymd(first, 1, 1);
        params.not_after = date_time_ymd(last, 1, 1);
        self.sign(params)
    }

    /// A certificate and its key as PEM files `NAME.crt` and `NAME.key` in a folder.
    pub(crate) fn write(&self, folder: &Path, name: &str, certificate: Certified) {
        let (params, key) = (certificate.0, KeyPair::generate().unwrap());
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), signed.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn sign(&self, params: CertificateParams) -> Shown {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Shown { chain: vec![certificate.der().clone()], key }
    }

    /// The CA's own certificate and key as PEM files `NAME.crt` and `NAME.key` in a folder.
    pub(crate) fn write_itself(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.crt")), self.issuer.pem()).unwrap();
        let key = self.issuer.key().serialize_pem();
        std::fs::write(folder.join(format!("{name}.key")), key).unwrap();
    }

    /// The CA's own certificate, used as a server's.
    pub(crate) fn itself(&self) -> Shown {
        let key = PrivateKeyDer::try_from(self.issuer.key().serialize_der()).unwrap();
        Shown { chain: vec![self.issuer.der().clone()], key }
    }
}

/// A certificate of X.509 version 1 with its CA and key: made by `openssl x509 -req` without an
/// extension file, which rcgen cannot do. Valid for 100 years.
pub(crate) mod version_1 {
    pub(crate) const CA: &str = include_str!("x509v1/ca.crt");
    pub(crate) const CERTIFICATE: &str = include_str!("x509v1/server.crt");
    pub(crate) const KEY: &str = include_str!("x509v1/server.key");
}

/// A server with the certificate of version 1, which rustls' own configuration refuses.
pub(crate) fn tls_with_version_1() -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(version_1::CERTIFICATE.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(version_1::KEY.as_bytes()).unwrap();
    let key = ring::sign::any_supported_type(&key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
    let shown = Arc::new(CertifiedKey::new(chain, key));
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

impl Shown {
    /// A server's TLS, as gateways have it: 1.2.
    pub(crate) fn tls(self) -> ServerConfig {
        self.tls_of(&TLS12)
    }

    pub(crate) fn tls_of(self, version: &'static SupportedProtocolVersion) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(self.chain, self.key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// TLS that requires a client certificate, as a master gateway does.
    pub(crate) fn mutual_tls(self, ca: &Ca, old: bool) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(ca.issuer.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[if old { &TLS12 } else { &TLS13 }])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap());
        let mut config = builder.with_single_cert(self.chain, self.key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}
