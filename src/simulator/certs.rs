//! Certificates in the form of a gateway's: a private root, and a server certificate under it.
//!
//! X.509 v3; the root has CA:TRUE, digitalSignature and keyCertSign, both EKUs; the server has
//! digitalSignature, both EKUs, and a SAN that contains only what an operator entered. A real
//! gateway's keys are RSA-2048, which `ring` cannot make; these are ECDSA P-256.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The SAN of the server certificate, and what else is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum CertificateKind {
    /// The listening address and 127.0.0.1, and the names `localhost` and `gateway.local`.
    #[default]
    Both,
    /// Only the addresses.
    IpOnly,
    /// Only the name `gateway.local`: a client that dials an address has to expect that name.
    DnsOnly,
    /// No SAN at all, the common name only: modern TLS stacks refuse it.
    NoSan,
    /// As `both`, but expired yesterday.
    Expired,
    /// As `both`, but signed by another root than `ca.crt`.
    OtherCa,
}

/// Why certificates could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate could not be made, or the one in the folder is invalid.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot read or write {path}")]
    File { path: String, source: std::io::Error },
}

/// A certificate with its key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate_pem: String,
    /// Its private key, PKCS#8.
    pub key_pem: String,
}

impl Identity {
    /// Writes `<name>.crt` and `<name>.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<(), CertificateError> {
        let certificate = folder.join(name).with_extension("crt");
        std::fs::write(&certificate, &self.certificate_pem).map_err(at(&certificate))?;
        write_secret(&folder.join(name).with_extension("key"), &self.key_pem)
    }
}

/// A private root.
pub struct Authority {
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new root with a fresh key.
    ///
    /// # Errors
    ///
    /// When no key or signature can be made.
    pub fn new(name: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, 10 * 365);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { root_pem, issuer: Issuer::new(params, key) })
    }

    /// The root in this folder, `ca.crt` and `ca.key`; a new one is written there when there is
    /// none, so that a gateway started again is trusted as before.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or holds something else under these names.
    pub fn load_or_create(folder: &Path, name: &str) -> Result<Self, CertificateError> {
        let (root_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        if root_path.exists() && key_path.exists() {
            let read = |path: &Path| std::fs::read_to_string(path).map_err(at(path));
            let (root_pem, key) = (read(&root_path)?, KeyPair::from_pem(&read(&key_path)?)?);
            let issuer = Issuer::from_ca_cert_pem(&root_pem, key)?;
            return Ok(Self { root_pem, issuer });
        }
        let new = Self::new(name)?;
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        write_secret(&key_path, &new.issuer.key().serialize_pem())?;
        std::fs::write(&root_path, &new.root_pem).map_err(at(&root_path))?;
        Ok(new)
    }

    /// The root certificate: the `ca.crt` that clients trust.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A server certificate for a gateway that is dialed at `addresses`.
    ///
    /// # Errors
    ///
    /// When `ring` cannot make a key or a signature.
    pub fn server(
        &self,
        kind: CertificateKind,
        addresses: &[IpAddr],
    ) -> Result<Identity, CertificateError> {
        let mut params = params("gateway", 2 * 365);
        let ips = addresses.iter().copied().map(SanType::IpAddress);
        let name = |name: &str| name.try_into().map(SanType::DnsName);
        match kind {
            CertificateKind::NoSan => {}
            CertificateKind::IpOnly => params.subject_alt_names.extend(ips),
            CertificateKind::DnsOnly => params.subject_alt_names.push(name("gateway.local")?),
            CertificateKind::Both | CertificateKind::Expired | CertificateKind::OtherCa => {
                params.subject_alt_names.extend(ips);
                params.subject_alt_names.extend([name("localhost")?, name("gateway.local")?]);
            }
        }
        if kind == CertificateKind::Expired {
            params.not_before = (SystemTime::now() - 30 * DAY).into();
            params.not_after = (SystemTime::now() - DAY).into();
        }
        if kind == CertificateKind::OtherCa {
            return Self::new("another gateway's root")?.sign(params);
        }
        self.sign(params)
    }

    /// A client certificate, as a master gateway's tenants have; the tenant's ID is its
    /// organization and its common name.
    ///
    /// # Errors
    ///
    /// When `ring` cannot make a key or a signature.
    pub fn tenant(&self, tenant: &str) -> Result<Identity, CertificateError> {
        let mut params = params(tenant, 2 * 365);
        params.distinguished_name.push(DnType::OrganizationName, tenant);
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, CertificateError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(name: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Valid also for a client whose clock is a little behind.
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + days * DAY).into();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> CertificateError {
    let path = path.display().to_string();
    move |source| CertificateError::File { path, source }
}

/// Writes a private key that only its owner can read.
fn write_secret(path: &Path, pem: &str) -> Result<(), CertificateError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(at(path))?;
    std::io::Write::write_all(&mut file, pem.as_bytes()).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::*;

    use super::*;

    fn parsed<R>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> R) -> R {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    #[test]
    fn the_root_and_the_server_are_made_as_a_gateway_makes_them() {
        let authority = Authority::new("G-SDK root").unwrap();
        parsed(authority.root_pem(), |root| {
            assert!(root.is_ca());
            let usage = root.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && usage.key_cert_sign());
            let extended = root.extended_key_usage().unwrap().unwrap().value;
            assert!(extended.client_auth && extended.server_auth);
            assert_eq!(root.version(), X509Version::V3);
        });
        let server = authority.server(CertificateKind::Both, &[[127, 0, 0, 1].into()]).unwrap();
        parsed(&server.certificate_pem, |server| {
            assert!(!server.is_ca());
            let usage = server.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            assert_eq!(
                server.subject_alternative_name().unwrap().unwrap().value.general_names.len(),
                3
            );
            assert!(server.validity().is_valid());
        });
    }

    #[test]
    fn the_variants_are_as_named() {
        let authority = Authority::new("G-SDK root").unwrap();
        let addresses = [[127, 0, 0, 1].into()];
        let names = |kind| {
            let server = authority.server(kind, &addresses).unwrap();
            parsed(&server.certificate_pem, |server| {
                server
                    .subject_alternative_name()
                    .unwrap()
                    .map_or(0, |names| names.value.general_names.len())
            })
        };
        assert_eq!(names(CertificateKind::NoSan), 0);
        assert_eq!(names(CertificateKind::IpOnly), 1);
        assert_eq!(names(CertificateKind::DnsOnly), 1);
        let expired = authority.server(CertificateKind::Expired, &addresses).unwrap();
        parsed(&expired.certificate_pem, |server| assert!(!server.validity().is_valid()));
    }

    #[test]
    fn a_root_in_a_folder_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(folder.path(), "G-SDK root").unwrap();
        let second = Authority::load_or_create(folder.path(), "G-SDK root").unwrap();
        assert_eq!(first.root_pem(), second.root_pem());
        second.server(CertificateKind::Both, &[]).unwrap();
    }
}
