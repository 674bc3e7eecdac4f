//! What happens to a call before and after its service: package names, delays, injected errors;
//! and how strict a gateway is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tonic::Status;

/// Most methods that are counted: clients can make up names, which may not fill the memory.
const METHODS_MAX: usize = 64;

/// The package names of a call.
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

    /// A service's name without its prefix, and which it has.
    pub(crate) fn split(service: &str) -> (&str, Self) {
        match service.strip_prefix(Self::Gsdk.prefix()) {
            Some(name) => (name, Self::Gsdk),
            None => (service, Self::Bare),
        }
    }
}

/// Which package names are served; a call with the others is answered UNIMPLEMENTED.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
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

/// How strict a gateway is towards its clients: by default as a real one, which is written with
/// grpc-go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// Sends a stream's response headers only with its first message.
    pub lazy_headers: bool,
    /// Sends each message of a stream in a DATA frame of its own.
    pub single_frames: bool,
    /// Ends the connection of a client that pings too often.
    pub enforces_pings: bool,
    /// The order of lists changes from call to call.
    pub shuffles_lists: bool,
    /// The largest request it reads, in bytes.
    pub max_recv_size: usize,
}

impl Strictness {
    pub const REAL: Self = Self {
        lazy_headers: true,
        single_frames: true,
        enforces_pings: true,
        shuffles_lists: true,
        max_recv_size: 75_497_472,
    };
    pub const LENIENT: Self = Self {
        lazy_headers: false,
        single_frames: false,
        enforces_pings: false,
        shuffles_lists: false,
        ..Self::REAL
    };
}

/// An injected error.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    pub(crate) status: Status,
    /// The number of calls that still fail; `None` for all.
    pub(crate) times: Option<u64>,
}

/// How calls are treated, which faults change, and how many there were.
#[derive(Debug)]
pub(crate) struct CallRules {
    pub(crate) packages: Packages,
    /// The delay of every call.
    pub(crate) latency: Duration,
    /// The delay of every answer once it is made.
    pub(crate) answer_delay: Duration,
    pub(crate) strictness: Strictness,
    /// Errors by method; `*` is any.
    pub(crate) errors: BTreeMap<String, CallError>,
    /// By method.
    calls: BTreeMap<String, u64>,
}

impl CallRules {
    fn count(&mut self, method: &str) {
        if self.calls.len() < METHODS_MAX || self.calls.contains_key(method) {
            *self.calls.entry(method.to_owned()).or_default() += 1;
        }
    }

    /// The error of a call, if one is injected.
    fn take_error(&mut self, method: &str) -> Option<Status> {
        let key = if self.errors.contains_key(method) { method } else { "*" };
        let error = self.errors.get_mut(key)?;
        let status = error.status.clone();
        error.times = error.times.map(|times| times.saturating_sub(1));
        if error.times == Some(0) {
            self.errors.remove(key);
        }
        Some(status)
    }
}

/// The rules of a running gateway.
#[derive(Debug)]
pub(crate) struct Interceptor(Mutex<CallRules>);

impl Interceptor {
    pub(crate) fn new(packages: Packages, strictness: Strictness) -> Arc<Self> {
        let (latency, answer_delay) = (Duration::ZERO, Duration::ZERO);
        let (errors, calls) = (BTreeMap::new(), BTreeMap::new());
        let rules = CallRules { packages, latency, answer_delay, strictness, errors, calls };
        Arc::new(Self(Mutex::new(rules)))
    }

    fn lock(&self) -> MutexGuard<'_, CallRules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut CallRules)) {
        change(&mut self.lock());
    }

    pub(crate) fn strictness(&self) -> Strictness {
        self.lock().strictness
    }

    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        self.lock().calls.clone()
    }

    /// Counts a call and delays it.
    ///
    /// # Errors
    ///
    /// When the package name is not served, or an error is injected.
    pub(crate) async fn admit(
        &self,
        service: &str,
        package: Package,
        method: &str,
    ) -> Result<(), Status> {
        let (latency, error) = {
            let mut rules = self.lock();
            let error = if rules.packages.serves(package) {
                rules.count(method);
                rules.take_error(method)
            } else {
                let service = format!("{}{service}", package.prefix());
                Some(Status::unimplemented(format!("unknown service {service}")))
            };
            (rules.latency, error)
        };
        pause(latency).await;
        error.map_or(Ok(()), Err)
    }

    /// Delays an answer that is made: what happens meanwhile is not in it.
    pub(crate) async fn delay_answer(&self) {
        let delay = self.lock().answer_delay;
        pause(delay).await;
    }
}

async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn package_names_are_split_off() {
        assert_eq!(Package::split("connect.Connect"), ("connect.Connect", Package::Bare));
        assert_eq!(Package::split("gsdk.connect.Connect"), ("connect.Connect", Package::Gsdk));
        assert_eq!(Package::split(""), ("", Package::Bare));
    }

    #[tokio::test]
    async fn an_injected_error_is_returned_the_requested_number_of_times() {
        let interceptor = Interceptor::new(Packages::Both, Strictness::REAL);
        let error = CallError { status: Status::internal("injected"), times: Some(2) };
        interceptor.update(|rules| {
            rules.errors.insert("GetDeviceList".to_owned(), error);
        });
        for failed in [true, true, false] {
            let admitted = interceptor.admit("connect.Connect", Package::Gsdk, "GetDeviceList");
            assert_eq!(admitted.await.is_err_and(|error| error.code() == Code::Internal), failed);
        }
        interceptor.admit("connect.Connect", Package::Gsdk, "Connect").await.unwrap();
        assert_eq!(interceptor.calls()["GetDeviceList"], 3);
    }
}
