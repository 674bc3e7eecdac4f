//! One task a gateway, which does nothing but read and hand on, for ever.
//!
//! May not decide about a device's state, nor when the list is read: it is told. Reading never
//! waits for the reader of the queue: where the queue is full the stream is dropped, which is
//! handed on as a lost link once there is room again, and the link is made anew. An error never
//! ends the task.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::fleet::GatewayIndex;
use crate::net::Backoff;
use crate::task::caught;

use super::channel::KeepAlive;
use super::client::{GatewayClient, RpcObserver};
use super::failures::Told;
use super::live::Live;
use super::lost::Lost;
use super::observation::{LinkError, Observation};
use super::options::GatewayOptions;
use super::package::PackageMemory;
use super::subscription::{NotEstablished, establish};

/// The one queue of all gateways' observations.
pub type Observations = mpsc::Sender<(GatewayIndex, Observation)>;

/// A gateway's task, as seen by those who ask something of it.
#[derive(Debug)]
pub struct Link {
    list_now: Arc<Notify>,
    client: watch::Receiver<Option<GatewayClient>>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts the task. It ends when `stop` turns true or its sender is gone, or nobody reads the
    /// queue any more.
    #[must_use]
    pub fn start(
        index: GatewayIndex,
        options: GatewayOptions,
        queue: Observations,
        observer: RpcObserver,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        let list_now = Arc::new(Notify::new());
        let (client_sender, client) = watch::channel(None);
        let ends = Ends {
            index,
            queue,
            observer,
            list_now: list_now.clone(),
            client: client_sender,
            options,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = ends.run_on() => {}
            }
        });
        Self { list_now, client, task }
    }

    /// Asks for the list. At most one is under way; asking again meanwhile gives one more after it.
    /// While no link stands this does nothing: whoever sees `LinkUp` asks.
    pub fn list_now(&self) {
        self.list_now.notify_one();
    }

    /// The calls of this gateway beside its stream; `None` while no link stands.
    #[must_use]
    pub fn client(&self) -> Option<GatewayClient> {
        self.client.borrow().clone()
    }

    /// The same to keep: always the present link's client. For those who do not hold the link.
    #[must_use]
    pub fn clients(&self) -> watch::Receiver<Option<GatewayClient>> {
        self.client.clone()
    }

    /// Waits until the task has ended.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}

/// What a task is bound to for ever.
#[derive(Clone)]
struct Ends {
    index: GatewayIndex,
    options: GatewayOptions,
    queue: Observations,
    observer: RpcObserver,
    list_now: Arc<Notify>,
    client: watch::Sender<Option<GatewayClient>>,
}

/// What a task learns of its gateway, and forgets if it dies.
struct Task {
    ends: Ends,
    packages: PackageMemory,
    keep_alive: KeepAlive,
    backoff: Backoff,
    told: Told,
}

/// How an attempt ended: before a link stood, or after.
struct Ended {
    lost: Lost,
    /// Since when the link stood, and its last sign of life.
    stood: Option<(Instant, Instant)>,
}

impl Ends {
    /// Runs for ever; a panic costs the link, not the task.
    async fn run_on(&self) {
        loop {
            let mut task = Task::new(self.clone());
            let Err(panic) = caught(async move { task.run().await }).await else { return };
            let gateway = &self.options.name;
            tracing::error!(%gateway, panic, "its task died of a mistake in this program");
            let client = self.client.send_replace(None);
            let message = format!("gateway {gateway}: its task died of a mistake here: {panic}");
            let error = LinkError::new("internal", message);
            // What came since the last byte was not observed, however late the panic is.
            let last = client.map(|client| client.activity().last_activity().into_std());
            let observation = match last {
                Some(last_sign_of_life) => Observation::LinkDown { last_sign_of_life, error },
                None => Observation::AttemptFailed(error),
            };
            if self.queue.send((self.index, observation)).await.is_err() {
                return;
            }
            sleep(self.options.timing.retry.first).await;
        }
    }
}

impl Task {
    fn new(ends: Ends) -> Self {
        Self {
            packages: PackageMemory::default(),
            keep_alive: KeepAlive::Pings,
            backoff: Backoff::new(ends.options.timing.retry),
            told: Told::default(),
            ends,
        }
    }

    async fn run(&mut self) {
        loop {
            let Ended { lost, stood } = self.attempt().await;
            self.ends.client.send_replace(None);
            let changed = lost.pings_unwanted && self.keep_alive == KeepAlive::Pings;
            if changed {
                self.keep_alive = KeepAlive::Calls;
                let gateway = &self.ends.options.name;
                tracing::info!(%gateway, "it takes no HTTP/2 pings; a light call from now on");
            } else {
                self.told.failed(&self.ends.options.name, &lost.error);
            }
            let observation = match stood {
                None => Observation::AttemptFailed(lost.error),
                Some((_, last)) => {
                    let last_sign_of_life = last.into_std();
                    Observation::LinkDown { last_sign_of_life, error: lost.error }
                }
            };
            if self.ends.queue.send((self.ends.index, observation)).await.is_err() {
                return;
            }
            if !changed {
                let held = stood.map(|(since, last)| last.saturating_duration_since(since));
                sleep(self.backoff.next(lost.kind.is_absence(held), held)).await;
            }
        }
    }

    /// Connects, subscribes, and reads until the link is lost.
    async fn attempt(&mut self) -> Ended {
        let (options, observer) = (&self.ends.options, self.ends.observer.clone());
        let opened =
            GatewayClient::open(options, self.keep_alive, self.packages.clone(), observer).await;
        let client = match opened {
            Ok(client) => client,
            Err(error) => return Ended { lost: Lost::by(&error), stood: None },
        };
        let (subscription, package) = match establish(&client).await {
            Ok(established) => established,
            Err(NotEstablished::Stream(status)) => {
                return Ended { lost: Lost::by_stream(&client, Err(status)), stood: None };
            }
            Err(NotEstablished::Call(error)) => {
                return Ended { lost: Lost::by(&error), stood: None };
            }
        };
        forget_permit(&self.ends.list_now).await;
        self.ends.client.send_replace(Some(client.clone()));
        let certificate_expires_at = client.certificate_expires_at();
        let up = Observation::LinkUp { package, certificate_expires_at };
        if self.ends.queue.try_send((self.ends.index, up)).is_err() {
            return Ended { lost: Lost::by_overflow(&self.ends.options.name), stood: None };
        }
        self.told.up(&self.ends.options.name, package);
        let since = Instant::now();
        let live = Live {
            index: self.ends.index,
            queue: &self.ends.queue,
            list_now: &self.ends.list_now,
            client: &client,
            package,
            keep_alive: self.keep_alive,
        };
        let lost = live.read_on(subscription).await;
        Ended { lost, stood: Some((since, client.activity().last_activity())) }
    }
}

/// What was asked while no link stood is not carried over into a new one.
async fn forget_permit(notify: &Notify) {
    tokio::select! {
        biased;
        () = notify.notified() => {}
        () = std::future::ready(()) => {}
    }
}
