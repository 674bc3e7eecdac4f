//! The age of a gateway: under which package name it serves the calls, and who remembers it.
//!
//! May not call anything: it only rewrites the path of a call on its way out. Messages of both ages
//! are the same, so one set of generated code serves both (wire, section 1).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::http::{Request, Uri, uri::PathAndQuery};
use tower::Service;

/// The package under which a gateway serves `Connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Package {
    /// `gsdk.connect`: gateways of version 1.5 (2023-02) and later.
    Gsdk,
    /// `connect`: gateways of version 1.4 and earlier.
    Old,
}

impl Package {
    /// The other of the two.
    #[must_use]
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Gsdk => Self::Old,
            Self::Old => Self::Gsdk,
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gsdk => "gsdk.connect",
            Self::Old => "connect",
        })
    }
}

/// What is known of one gateway's age. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct PackageMemory(Arc<AtomicU8>);

const OLD: u8 = 1;
const CONFIRMED: u8 = 2;

impl PackageMemory {
    /// The package to try first, and whether this connection's gateway has answered under it.
    pub(super) fn get(&self) -> (Package, bool) {
        let bits = self.0.load(Ordering::Relaxed);
        let package = if bits & OLD == 0 { Package::Gsdk } else { Package::Old };
        (package, bits & CONFIRMED != 0)
    }

    /// The gateway has answered under this package.
    pub(super) fn confirm(&self, package: Package) {
        let old = if package == Package::Old { OLD } else { 0 };
        self.0.store(old | CONFIRMED, Ordering::Relaxed);
    }

    /// What was true may have changed (a gateway is updated while away): keep it as a guess.
    pub(super) fn doubt(&self) {
        self.0.fetch_and(!CONFIRMED, Ordering::Relaxed);
    }
}

/// A channel whose calls go out under one package's paths.
#[derive(Clone, Debug)]
pub(super) struct Packaged<S> {
    inner: S,
    package: Package,
}

impl<S> Packaged<S> {
    pub(super) const fn new(inner: S, package: Package) -> Self {
        Self { inner, package }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Packaged<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        if self.package == Package::Old
            && let Some(uri) = old_uri(request.uri())
        {
            *request.uri_mut() = uri;
        }
        self.inner.call(request)
    }
}

/// `/gsdk.connect.Connect/X` as `/connect.Connect/X`; `None` where it is no such path.
fn old_uri(uri: &Uri) -> Option<Uri> {
    let path = format!("/{}", uri.path().strip_prefix("/gsdk.")?);
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_package_of_a_path_is_rewritten() {
        let uri = Uri::from_static("https://a:4000/gsdk.connect.Connect/GetDeviceList");
        let old = old_uri(&uri).unwrap();
        assert_eq!(old.to_string(), "https://a:4000/connect.Connect/GetDeviceList");
        assert_eq!(old_uri(&old), None);
        let bare = Uri::from_static("/gsdk.connect.Connect/GetDeviceList");
        assert_eq!(old_uri(&bare).unwrap().to_string(), "/connect.Connect/GetDeviceList");
    }

    #[test]
    fn the_memory_outlives_the_connection_as_a_guess() {
        let memory = PackageMemory::default();
        assert_eq!(memory.get(), (Package::Gsdk, false));
        memory.confirm(Package::Old);
        assert_eq!(memory.clone().get(), (Package::Old, true));
        memory.doubt();
        assert_eq!(memory.get(), (Package::Old, false));
    }
}
