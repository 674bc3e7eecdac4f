//! A link that is up: reads the stream and the lists and reports them in order. It never waits for
//! the queue of reports.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use futures_util::future::OptionFuture;
use tokio::time::Instant;

use super::client::GatewayClient;
use super::convert;
use super::disconnect::Disconnect;
use super::error::{Error, LinkError};
use super::link_output::LinkOutput;
use super::reports::LinkReport;
use super::rpc::SUBSCRIBE_STATUS;
use super::subscription::{BATCH_LEN_MAX, Subscription};
use super::supervisor::keep_alive_by_calls;
use crate::fleet::{AcceptFilter, Listed};
use crate::proto::connect::{GetAcceptFilterRequest, StatusChange};

/// Lists in a row without an answer after which the link ends: the gateway hangs, although
/// something on its connection still answers, such as a proxy.
const UNANSWERED_LISTS_MAX: u32 = 3;

type PendingCall<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

pub(crate) struct ConnectedLink<'a> {
    output: &'a LinkOutput,
    client: &'a GatewayClient,
    subscription: Subscription,
    list: Option<PendingCall<Vec<Listed>>>,
    /// The last lists in a row that were not answered in time.
    unanswered_lists: u32,
    filter: Option<PendingCall<AcceptFilter>>,
}

impl<'a> ConnectedLink<'a> {
    pub(crate) fn new(
        output: &'a LinkOutput,
        client: &'a GatewayClient,
        subscription: Subscription,
    ) -> Self {
        Self { output, client, subscription, list: None, unanswered_lists: 0, filter: None }
    }

    /// Reads until the link ends.
    pub(crate) async fn run(mut self) -> Result<Infallible, Disconnect> {
        let connection = self.client.connection();
        let probe = |deadline| connection.call(GetAcceptFilterRequest {}, deadline);
        tokio::select! {
            end = self.read() => end,
            disconnect = keep_alive_by_calls(connection, probe) => Err(disconnect),
        }
    }

    async fn read(&mut self) -> Result<Infallible, Disconnect> {
        let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
        loop {
            if self.list.is_none() && self.output.list_requests.take(|_| true).is_some() {
                self.request_list()?;
            }
            tokio::select! {
                end = self.subscription.read(&mut batch) => {
                    let full = batch.len() >= BATCH_LEN_MAX;
                    self.report_changes(&mut batch)?;
                    end?;
                    if full {
                        // A stream that is always ready must not starve the other tasks.
                        tokio::task::yield_now().await;
                    }
                }
                Some(list) = OptionFuture::from(self.list.as_mut()) => {
                    self.list = None;
                    let end = self.report_ready(&mut batch).await?;
                    let reported = self.report_list(list);
                    end.and(reported)?;
                }
                Some(filter) = OptionFuture::from(self.filter.as_mut()) => {
                    self.filter = None;
                    // A filter that cannot be read is no failure of the link.
                    if let Ok(filter) = filter {
                        self.output.reports.try_send(LinkReport::AcceptFilter(Box::new(filter)))?;
                    }
                }
                () = self.output.list_requests.requested() => {}
            }
        }
    }

    /// Reports all changes that are there: those that came before a list are reported before it.
    /// Returns the end of the stream, if that is there.
    async fn report_ready(
        &mut self,
        batch: &mut Vec<StatusChange>,
    ) -> Result<Result<(), Disconnect>, Disconnect> {
        loop {
            let end = self.subscription.read_ready(batch);
            let full = batch.len() >= BATCH_LEN_MAX;
            self.report_changes(batch)?;
            if end.is_err() || !full {
                return Ok(end);
            }
            tokio::task::yield_now().await;
        }
    }

    fn request_list(&mut self) -> Result<(), Disconnect> {
        self.output.reports.try_send(LinkReport::ListRequested)?;
        let client = self.client.clone();
        self.list = Some(Box::pin(async move { client.device_list().await }));
        Ok(())
    }

    /// Reports a list and requests the accept filter after it. A list that failed by a broken
    /// connection ends the link: a stopping server (GOAWAY) may leave the stream open and accept no
    /// more calls. So do several lists without an answer.
    fn report_list(&mut self, list: Result<Vec<Listed>, Error>) -> Result<(), Disconnect> {
        match list {
            Ok(rows) => {
                self.unanswered_lists = 0;
                if self.filter.is_none() {
                    let client = self.client.clone();
                    self.filter = Some(Box::pin(async move { client.accept_filter().await }));
                }
                self.output.reports.try_send(LinkReport::List(rows))
            }
            Err(error) => {
                self.output.reports.try_send(LinkReport::ListFailed(LinkError::from(&error)))?;
                let is_unanswered = matches!(error, Error::Deadline { .. });
                self.unanswered_lists = if is_unanswered { self.unanswered_lists + 1 } else { 0 };
                match error {
                    Error::Broken { .. } => {
                        Err(Disconnect::from_call(self.client.connection(), error))
                    }
                    _ if self.unanswered_lists >= UNANSWERED_LISTS_MAX => Err(error.into()),
                    _ => Ok(()),
                }
            }
        }
    }

    fn report_changes(&self, batch: &mut Vec<StatusChange>) -> Result<(), Disconnect> {
        let received = Instant::now().into_std();
        for change in batch.drain(..) {
            match convert::status_change(change, received) {
                Some(status) => self.output.reports.try_send(LinkReport::Status(status))?,
                None => self.client.connection().warn_about_id_0(SUBSCRIBE_STATUS, 1),
            }
        }
        Ok(())
    }
}
