//! The stable codes of failed attempts to connect.

/// The stable code of a failed attempt to connect, in payloads, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[strum(serialize_all = "snake_case")]
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
    AlpnRefused,
    WebsocketTimeout,
    NotWebsocket,
}

impl DialCode {
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The code with the text of its failure.
    pub(crate) const fn with(self, text: String) -> (Self, String) {
        (self, text)
    }

    /// Whether a file of the configuration is missing or cannot be read.
    pub(crate) const fn is_file_missing(self) -> bool {
        matches!(
            self,
            Self::CaFileUnreadable
                | Self::CertFileUnreadable
                | Self::KeyFileUnreadable
                | Self::PasswordFileUnreadable
        )
    }

    /// Whether trying again costs the peer nothing: nothing answers at the address now, as while it
    /// restarts or hangs, or a file of ours is missing, or no file handle is left.
    pub(crate) const fn is_absence(self) -> bool {
        self.is_file_missing()
            || matches!(
                self,
                Self::NoFileHandles
                    | Self::HostNotFound
                    | Self::LookupTimeout
                    | Self::ConnectionRefused
                    | Self::Unreachable
                    | Self::ConnectTimeout
                    | Self::TlsTimeout
                    | Self::TlsClosed
                    | Self::WebsocketTimeout
            )
    }
}
