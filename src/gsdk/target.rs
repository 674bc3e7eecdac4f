//! How a gateway is reached, for single calls and for a link: at its own address, or through a
//! master.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::client::GatewayClient;
use super::connection::RpcObserver;
use super::error::Error;
use super::link::Link;
use super::master_client::MasterClient;
use super::master_link::MasterLink;
use super::options::GatewayOptions;
use super::reports::LinkReportSender;
use crate::fleet::GatewayIndex;
use crate::ids::GatewayName;

/// A master's own reports that may wait, where they are not read.
const REPORTS_MAX: usize = 1_024;

/// Where a gateway is reached.
#[derive(Clone, Debug)]
pub enum GatewayTarget {
    /// At an address of its own.
    Direct(GatewayOptions),
    /// Behind the master with these options, with this ID there.
    Master { name: GatewayName, options: GatewayOptions, gateway_id: String },
}

impl GatewayTarget {
    /// Connects for some calls, without a [`Link`].
    pub async fn dial(&self, observer: RpcObserver) -> Result<GatewayClient, Error> {
        match self {
            Self::Direct(options) => GatewayClient::dial(options, observer).await,
            Self::Master { options, gateway_id, .. } => {
                let master = MasterClient::dial(options, observer).await?;
                Ok(GatewayClient::through(master, gateway_id.as_str().into()))
            }
        }
    }

    /// Starts a link to this gateway alone; see [`Link::start`].
    #[must_use]
    pub fn link(
        self,
        name: GatewayName,
        reports: LinkReportSender,
        stop: watch::Receiver<bool>,
    ) -> Link {
        let (index, observer): (_, RpcObserver) = (GatewayIndex(0), Arc::new(|_: &_| {}));
        match self {
            Self::Direct(options) => Link::start(index, options, reports, observer, stop),
            Self::Master { name: master, options, gateway_id } => {
                let (own, mut unread) = mpsc::channel(REPORTS_MAX);
                tokio::spawn(async move { while unread.recv().await.is_some() {} });
                let link = MasterLink::start(master, options, reports, own, observer, stop);
                link.add(index, name, &gateway_id)
            }
        }
    }
}
