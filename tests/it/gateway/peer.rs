//! A server that behaves like a gateway as far as the tests need it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use gsdk2mqtt::proto::connect::connect_server::{Connect, ConnectServer};
use gsdk2mqtt::proto::connect::*;
use gsdk2mqtt::proto::err;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};
use tower::Service;

type Changes = mpsc::UnboundedSender<Result<StatusChange, Status>>;

/// The behaviour of a peer, shared by its connections.
#[derive(Default)]
pub(super) struct State {
    /// Answers a subscription only with its first change, as servers in Go and Python do.
    pub(super) lazy_headers: bool,
    /// Ends each subscription with OK as soon as it is open.
    pub(super) ends_streams: bool,
    /// Never answers a request of the list.
    pub(super) holds_lists: bool,
    /// Answers calls with this instead.
    pub(super) refuse: Mutex<Option<Code>>,
    pub(super) devices: Mutex<Vec<DeviceInfo>>,
    pub(super) streams: Mutex<Vec<Changes>>,
    pub(super) queue_size: AtomicUsize,
    pub(super) filter: Mutex<AcceptFilter>,
}

/// A running peer.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<State>,
    stopping: Arc<Notify>,
}

impl Peer {
    /// A peer of version 1.5 or later.
    pub(super) async fn start(tls: ServerConfig, state: State) -> Self {
        Self::serve(tls, state, |router, service| router.add_service(service)).await
    }

    /// A peer of version 1.4 or earlier.
    pub(super) async fn start_old(tls: ServerConfig, state: State) -> Self {
        Self::serve(tls, state, |router, service| router.add_service(Old(service))).await
    }

    /// A web server, such as a proxy whose gateway is away.
    pub(super) async fn start_web_server(tls: ServerConfig) -> Self {
        Self::serve(tls, State::default(), |router, _| router.add_service(WebServer)).await
    }

    async fn serve(
        tls: ServerConfig,
        state: State,
        add: impl Fn(
            &mut tonic::transport::Server,
            ConnectServer<Served>,
        ) -> tonic::transport::server::Router,
    ) -> Self {
        let state = Arc::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (sender, accepted) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        let _ = sender.send(Ok::<_, std::io::Error>(socket)).await;
                    }
                });
            }
        });
        let service = ConnectServer::new(Served(state.clone()));
        let router = add(&mut tonic::transport::Server::builder(), service);
        let stopping = Arc::new(Notify::new());
        let stop = stopping.clone();
        let accepted = ReceiverStream::new(accepted);
        tokio::spawn(router.serve_with_incoming_shutdown(accepted, stop.notified_owned()));
        Self { address, state, stopping }
    }

    /// Accepts no more calls, but leaves the streams open, as servers at a graceful stop do.
    pub(super) fn stop_in_peace(&self) {
        self.stopping.notify_one();
    }

    /// Reports a change on every subscription.
    pub(super) fn tell(&self, device_id: u32, status: i32) {
        let change = StatusChange { device_id, status, timestamp: 1_700_000_000 };
        self.state.streams.lock().unwrap().retain(|stream| stream.send(Ok(change)).is_ok());
    }

    /// Ends every subscription with OK.
    pub(super) fn end_streams(&self) {
        self.state.streams.lock().unwrap().clear();
    }

    /// Ends every subscription with an error.
    pub(super) fn fail_streams(&self, status: &Status) {
        for stream in self.state.streams.lock().unwrap().drain(..) {
            let _ = stream.send(Err(status.clone()));
        }
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.state.streams.lock().unwrap().iter().filter(|stream| !stream.is_closed()).count()
    }
}

/// A device that the peer lists.
pub(super) fn device(device_id: u32, status: i32) -> DeviceInfo {
    DeviceInfo { device_id, status, ip_addr: b"10.0.0.9".to_vec(), ..Default::default() }
}

/// The service under its old name.
#[derive(Clone)]
struct Old(ConnectServer<Served>);

impl NamedService for Old {
    const NAME: &'static str = "connect.Connect";
}

impl Service<http::Request<Body>> for Old {
    type Response = <ConnectServer<Served> as Service<http::Request<Body>>>::Response;
    type Error = <ConnectServer<Served> as Service<http::Request<Body>>>::Error;
    type Future = <ConnectServer<Served> as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().replacen("/connect.", "/gsdk.connect.", 1);
        *request.uri_mut() = path.parse().unwrap();
        self.0.call(request)
    }
}

/// Answers with an error page.
#[derive(Clone)]
struct WebServer;

impl NamedService for WebServer {
    const NAME: &'static str = ConnectServer::<Served>::NAME;
}

impl Service<http::Request<Body>> for WebServer {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let page = Body::new("<html>no gateway</html>".to_owned());
        let page =
            http::Response::builder().status(502).header("content-type", "text/html").body(page);
        std::future::ready(Ok(page.unwrap()))
    }
}

pub(super) struct Served(Arc<State>);

impl Served {
    fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        match *self.0.refuse.lock().unwrap() {
            Some(code) => Err(Status::new(code, "as set by the test")),
            None => Ok(Response::new(answer)),
        }
    }
}

/// Every second device fails.
fn device_errors(device_ids: &[u32]) -> Vec<err::ErrorResponse> {
    let failed = |device_id: &u32| err::ErrorResponse {
        device_id: *device_id,
        code: Code::NotFound as i32,
        msg: format!("the device {device_id} is not connected to this gateway at the moment"),
    };
    device_ids.iter().filter(|id| *id % 2 == 1).map(failed).collect()
}

/// The whole service: the implemented methods, and a refusal for the rest.
macro_rules! service {
    ({ $($served:tt)* } $($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl Connect for Served {
            $($served)*
            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not served in this test"))
            })*
        }
    };
}

service! {
    {
        type SubscribeStatusStream =
            Pin<Box<dyn Stream<Item = Result<StatusChange, Status>> + Send>>;

        async fn subscribe_status(
            &self,
            request: Request<SubscribeStatusRequest>,
        ) -> Result<Response<Self::SubscribeStatusStream>, Status> {
            self.answer(())?;
            let queue_size = usize::try_from(request.into_inner().queue_size).unwrap();
            self.0.queue_size.store(queue_size, Ordering::Relaxed);
            let (sender, mut changes) = mpsc::unbounded_channel();
            if !self.0.ends_streams {
                self.0.streams.lock().unwrap().push(sender);
            }
            let first = if self.0.lazy_headers { changes.recv().await } else { None };
            let rest = UnboundedReceiverStream::new(changes);
            Ok(Response::new(Box::pin(tokio_stream::iter(first).chain(rest))))
        }

        async fn get_device_list(
            &self,
            _: Request<GetDeviceListRequest>,
        ) -> Result<Response<GetDeviceListResponse>, Status> {
            if self.0.holds_lists {
                std::future::pending::<()>().await;
            }
            let device_infos = self.0.devices.lock().unwrap().clone();
            self.answer(GetDeviceListResponse { device_infos })
        }

        async fn get_accept_filter(
            &self,
            _: Request<GetAcceptFilterRequest>,
        ) -> Result<Response<GetAcceptFilterResponse>, Status> {
            let filter = Some(self.0.filter.lock().unwrap().clone());
            self.answer(GetAcceptFilterResponse { filter })
        }

        async fn set_accept_filter(
            &self,
            request: Request<SetAcceptFilterRequest>,
        ) -> Result<Response<SetAcceptFilterResponse>, Status> {
            *self.0.filter.lock().unwrap() = request.into_inner().filter.unwrap();
            self.answer(SetAcceptFilterResponse {})
        }

        async fn connect(
            &self,
            request: Request<ConnectRequest>,
        ) -> Result<Response<ConnectResponse>, Status> {
            let info = request.into_inner().connect_info.unwrap();
            self.answer(ConnectResponse { device_id: u32::try_from(info.port).unwrap() })
        }

        /// Reports failed devices as gateways do: by an error with details.
        async fn enable_ssl_multi(
            &self,
            request: Request<EnableSslMultiRequest>,
        ) -> Result<Response<EnableSslMultiResponse>, Status> {
            let device_errors = device_errors(&request.into_inner().device_i_ds);
            let type_url = "type.googleapis.com/gsdk.err.MultiErrorResponse".to_owned();
            let value = err::MultiErrorResponse { device_errors }.encode_to_vec();
            let mut status = tonic_types::pb::Status { code: 13, ..Default::default() };
            status.details.resize_with(1, Default::default);
            status.details[0].type_url = type_url;
            status.details[0].value = value;
            let details = status.encode_to_vec().into();
            Err(Status::with_details(Code::Internal, "some failed", details))
        }

        /// Reports failed devices in the answer itself.
        async fn disable_ssl_multi(
            &self,
            request: Request<DisableSslMultiRequest>,
        ) -> Result<Response<DisableSslMultiResponse>, Status> {
            let device_errors = device_errors(&request.into_inner().device_i_ds);
            self.answer(DisableSslMultiResponse { device_errors })
        }

        /// Answers after the requested time, as a gateway does.
        async fn search_device(
            &self,
            request: Request<SearchDeviceRequest>,
        ) -> Result<Response<SearchDeviceResponse>, Status> {
            let wait = u64::from(request.into_inner().timeout);
            tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
            self.answer(SearchDeviceResponse { device_infos: Vec::new() })
        }
    }
    add_async_connection(AddAsyncConnectionRequest) -> AddAsyncConnectionResponse;
    delete_async_connection(DeleteAsyncConnectionRequest) -> DeleteAsyncConnectionResponse;
    get_pending_list(GetPendingListRequest) -> GetPendingListResponse;
    disconnect(DisconnectRequest) -> DisconnectResponse;
    disconnect_all(DisconnectAllRequest) -> DisconnectAllResponse;
    get_slave_device(GetSlaveDeviceRequest) -> GetSlaveDeviceResponse;
    set_slave_device(SetSlaveDeviceRequest) -> SetSlaveDeviceResponse;
    set_connection_mode(SetConnectionModeRequest) -> SetConnectionModeResponse;
    set_connection_mode_multi(SetConnectionModeMultiRequest) -> SetConnectionModeMultiResponse;
    enable_ssl(EnableSslRequest) -> EnableSslResponse;
    disable_ssl(DisableSslRequest) -> DisableSslResponse;
}
