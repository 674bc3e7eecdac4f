//! The stable codes of failed attempts to connect, as in payloads, metrics and logs.

/// Why no connection was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialCode {
    CaFileUnreadable,
    CaFileInvalid,
    CertFileUnreadable,
    CertFileInvalid,
    KeyFileUnreadable,
    KeyFileInvalid,
    PasswordFileUnreadable,
    PasswordFileInvalid,
    NoFileHandles,
    NoSystemRoots,
    ServerNameInvalid,
    HostNotFound,
    LookupTimeout,
    ConnectionRefused,
    Unreachable,
    ConnectTimeout,
    TlsTimeout,
    NotTls,
    NotHttp2,
    TlsClosed,
    CertificateNameMismatch,
    CertificateWithoutSan,
    CertificateV1,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateUnknownIssuer,
    CertificateIsCa,
    CertificateInvalid,
    ClientCertificateRequired,
    ClientCertificateRefused,
    TlsIncompatible,
    TlsFailed,
}

impl DialCode {
    const FILE_UNREADABLE: [Self; 4] = [
        Self::CaFileUnreadable,
        Self::CertFileUnreadable,
        Self::KeyFileUnreadable,
        Self::PasswordFileUnreadable,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaFileUnreadable => "ca_file_unreadable",
            Self::CaFileInvalid => "ca_file_invalid",
            Self::CertFileUnreadable => "cert_file_unreadable",
            Self::CertFileInvalid => "cert_file_invalid",
            Self::KeyFileUnreadable => "key_file_unreadable",
            Self::KeyFileInvalid => "key_file_invalid",
            Self::PasswordFileUnreadable => "password_file_unreadable",
            Self::PasswordFileInvalid => "password_file_invalid",
            Self::NoFileHandles => "no_file_handles",
            Self::NoSystemRoots => "no_system_roots",
            Self::ServerNameInvalid => "server_name_invalid",
            Self::HostNotFound => "host_not_found",
            Self::LookupTimeout => "lookup_timeout",
            Self::ConnectionRefused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsTimeout => "tls_timeout",
            Self::NotTls => "not_tls",
            Self::NotHttp2 => "not_http2",
            Self::TlsClosed => "tls_closed",
            Self::CertificateNameMismatch => "certificate_name_mismatch",
            Self::CertificateWithoutSan => "certificate_without_san",
            Self::CertificateV1 => "certificate_v1",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateUnknownIssuer => "certificate_unknown_issuer",
            Self::CertificateIsCa => "certificate_is_ca",
            Self::CertificateInvalid => "certificate_invalid",
            Self::ClientCertificateRequired => "client_certificate_required",
            Self::ClientCertificateRefused => "client_certificate_refused",
            Self::TlsIncompatible => "tls_incompatible",
            Self::TlsFailed => "tls_failed",
        }
    }

    /// Whether a file that the configuration names is missing or cannot be read.
    pub fn is_file_unreadable(self) -> bool {
        Self::FILE_UNREADABLE.contains(&self)
    }
}

/// The same for a code in a payload.
pub fn is_file_missing(code: &str) -> bool {
    DialCode::FILE_UNREADABLE.iter().any(|unreadable| unreadable.as_str() == code)
}
