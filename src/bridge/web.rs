//! The web server's end of the loop.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::status_page::StatusPage;
use crate::http::Query;

/// The task of the web server, what it asks, and what its page needs of the loop.
#[derive(Debug)]
pub(crate) struct Web {
    task: JoinHandle<()>,
    queries: mpsc::Receiver<Query>,
    pub(crate) page: StatusPage,
}

impl Web {
    pub(crate) fn new(task: JoinHandle<()>, queries: mpsc::Receiver<Query>) -> Self {
        Self { task, queries, page: StatusPage::default() }
    }

    /// The next question. Cancel safe.
    pub(crate) async fn query(&mut self) -> Option<Query> {
        self.queries.recv().await
    }

    /// The next question, until the server has ended. Cancel safe.
    pub(crate) async fn query_or_end(&mut self) -> Option<Query> {
        tokio::select! {
            // It has ended or panicked.
            _ = &mut self.task => None,
            Some(query) = self.queries.recv() => Some(query),
        }
    }

    /// No more questions are taken.
    pub(crate) fn close(&mut self) {
        self.queries.close();
    }
}
