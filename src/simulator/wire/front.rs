//! What stands before all services: both package ages, latency, and errors on order.
//!
//! May not read a message: it works on paths and headers alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// Services that both ages have under another name.
const SERVICES: [&str; 4] =
    ["connect.Connect", "connect_master.ConnectMaster", "gateway.Gateway", "login.Login"];

/// The age of the package names in a call's path (wire, section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Package {
    /// V1.5 and later: `gsdk.connect`.
    Gsdk,
    /// V1.4 and earlier: `connect`.
    Bare,
}

impl Package {
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Self::Gsdk => "gsdk.",
            Self::Bare => "",
        }
    }

    /// The age that a request came in, as the front has noted it.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().copied().unwrap_or(Self::Gsdk)
    }
}

/// Which package ages are served; a call of the other is answered UNIMPLEMENTED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "kebab-case")]
pub enum Packages {
    /// Both at once.
    #[default]
    Both,
    /// Only `gsdk.connect` (V1.5 and later).
    Gsdk,
    /// Only `connect` (V1.4 and earlier).
    Bare,
}

impl Packages {
    fn serves(self, package: Package) -> bool {
        match self {
            Self::Both => true,
            Self::Gsdk => package == Package::Gsdk,
            Self::Bare => package == Package::Bare,
        }
    }
}

/// An error that calls of a method are answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFault {
    /// The gRPC code.
    pub code: Code,
    /// The message beside it.
    pub message: String,
    /// For how many calls still; `None` until it is taken away.
    pub times: Option<u64>,
}

#[derive(Debug, Default)]
struct Orders {
    packages: Packages,
    latency: Duration,
    lateness: Duration,
    lazy_headers: bool,
    faults: BTreeMap<String, CallFault>,
    calls: BTreeMap<String, u64>,
}

/// What is ordered of the front, changeable while it runs.
#[derive(Debug, Default)]
pub(crate) struct Front {
    orders: Mutex<Orders>,
}

impl Front {
    pub(crate) fn new(packages: Packages, lazy_headers: bool) -> Arc<Self> {
        let orders = Orders { packages, lazy_headers, ..Orders::default() };
        Arc::new(Self { orders: Mutex::new(orders) })
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers calls of a method (`*`: of any) with an error.
    pub(crate) fn fail(&self, method: &str, fault: CallFault) {
        self.lock().faults.insert(method.to_owned(), fault);
    }

    /// Takes all ordered errors away.
    pub(crate) fn heal(&self) {
        self.lock().faults.clear();
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    pub(crate) fn set_lateness(&self, lateness: Duration) {
        self.lock().lateness = lateness;
    }

    pub(crate) fn set_packages(&self, packages: Packages) {
        self.lock().packages = packages;
    }

    pub(crate) fn set_lazy_headers(&self, lazy: bool) {
        self.lock().lazy_headers = lazy;
    }

    /// Whether a stream's response headers wait for its first message.
    pub(crate) fn lazy_headers(&self) -> bool {
        self.lock().lazy_headers
    }

    /// How often each method was called, by its name in the interface definition.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        self.lock().calls.clone()
    }

    /// Notes a call: how long it is to be held up, and the error it is answered with.
    fn admit(&self, path: &str, package: Package) -> (Duration, Option<Status>) {
        let mut orders = self.lock();
        if !orders.packages.serves(package) {
            return (orders.latency, Some(Status::unimplemented(format!("unknown path {path}"))));
        }
        let method = path.rsplit('/').next().unwrap_or(path);
        // Only real methods: names made up by clients may not fill the memory.
        let known = orders.calls.len() < 64 || orders.calls.contains_key(method);
        if known && SERVICES.iter().any(|service| path.contains(service)) {
            *orders.calls.entry(method.to_owned()).or_default() += 1;
        }
        let key = if orders.faults.contains_key(method) { method } else { "*" };
        let mut error = None;
        if let Some(fault) = orders.faults.get_mut(key) {
            error = Some(Status::new(fault.code, fault.message.clone()));
            fault.times = fault.times.map(|times| times.saturating_sub(1));
            if fault.times == Some(0) {
                orders.faults.remove(key);
            }
        }
        (orders.latency, error)
    }
}

/// Puts the front before the services.
#[derive(Clone, Debug)]
pub(crate) struct FrontLayer(pub(crate) Arc<Front>);

impl<S> Layer<S> for FrontLayer {
    type Service = FrontService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FrontService { front: self.0.clone(), inner }
    }
}

/// The front with the services behind it.
#[derive(Clone, Debug)]
pub(crate) struct FrontService<S> {
    front: Arc<Front>,
    inner: S,
}

/// The path with the newer package name, and the age it came in.
fn modern_path(path: &str) -> (Option<String>, Package) {
    let service = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    match service {
        Some((service, _)) if SERVICES.contains(&service) => {
            (Some(format!("/gsdk.{}", &path[1..])), Package::Bare)
        }
        Some(_) | None => (None, Package::Gsdk),
    }
}

/// A request over the size limit is RESOURCE_EXHAUSTED at a gateway, which is written with
/// grpc-go, where tonic says OUT_OF_RANGE; nothing else here does.
fn as_grpc_go(mut response: http::Response<Body>) -> http::Response<Body> {
    if let Some(code) = response.headers_mut().get_mut(Status::GRPC_STATUS)
        && code == "11"
    {
        *code = http::HeaderValue::from_static("8");
    }
    response
}

impl<S> Service<http::Request<Body>> for FrontService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (path, package) = modern_path(request.uri().path());
        request.extensions_mut().insert(package);
        let (latency, error) = self.front.admit(request.uri().path(), package);
        if let Some(path) = path
            && let Ok(uri) = http::Uri::try_from(path)
        {
            *request.uri_mut() = uri;
        }
        // The service that was polled ready is the one to call; its clone stays behind.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let front = self.front.clone();
        Box::pin(async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            match error {
                Some(status) => Ok(status.into_http()),
                None => {
                    let answer = inner.call(request).await.map(as_grpc_go);
                    // Made already: what happens meanwhile is not in it.
                    let lateness = front.lock().lateness;
                    if !lateness.is_zero() {
                        tokio::time::sleep(lateness).await;
                    }
                    answer
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_paths_become_newer_ones_and_others_stay() {
        let (path, package) = modern_path("/connect.Connect/GetDeviceList");
        assert_eq!(path.as_deref(), Some("/gsdk.connect.Connect/GetDeviceList"));
        assert_eq!(package, Package::Bare);
        for path in ["/gsdk.connect.Connect/GetDeviceList", "/event.Event/X", "/", "", "x"] {
            assert_eq!(modern_path(path), (None, Package::Gsdk), "{path}");
        }
    }

    #[test]
    fn an_ordered_error_is_given_as_often_as_ordered() {
        let front = Front::default();
        let fault =
            CallFault { code: Code::Internal, message: "ordered".to_owned(), times: Some(2) };
        front.fail("GetDeviceList", fault);
        let path = "/gsdk.connect.Connect/GetDeviceList";
        let outcomes: Vec<bool> =
            (0..3).map(|_| front.admit(path, Package::Gsdk).1.is_some()).collect();
        assert_eq!(outcomes, [true, true, false]);
        assert!(front.admit("/gsdk.connect.Connect/Connect", Package::Gsdk).1.is_none());
        assert_eq!(front.calls()["GetDeviceList"], 3);
    }
}
