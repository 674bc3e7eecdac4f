//! Services `gsdk.login.Login` and `gsdk.gateway.Gateway` of a master gateway.
//!
//! May not decide who may log in or which device gateways there are: that is `master`.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use x509_parser::prelude::{FromDer, X509Certificate, parse_x509_pem};

use super::connect::{Answer, subscribe};
use super::front::Front;
use super::listen::Peer;
use super::master::token;
use crate::proto::gateway::gateway_server;
use crate::proto::gateway::*;
use crate::proto::login::login_server::Login;
use crate::proto::login::*;
use crate::simulator::master::{ADMINISTRATOR, Master};

/// Service Login.
pub(crate) struct LoginService(pub(crate) Arc<Master>);

/// The tenant of a certificate, which must be the one that the connection was made with: TLS has
/// checked that one against the root, and the vendor's clients use one for both.
fn tenant<T>(request: &Request<T>, pem: &str) -> Result<String, Status> {
    let (_, pem) = parse_x509_pem(pem.as_bytes())
        .map_err(|_| Status::invalid_argument("the tenant certificate is not PEM"))?;
    let shown = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
    if shown.as_deref() != Some(pem.contents.as_slice()) {
        let message = "the tenant certificate is not the one that the connection was made with";
        return Err(Status::permission_denied(message));
    }
    let (_, certificate) = X509Certificate::from_der(&pem.contents)
        .map_err(|_| Status::invalid_argument("the tenant certificate cannot be read"))?;
    let name = certificate.subject().iter_common_name().next();
    let name = name.and_then(|name| name.as_str().ok()).map(str::to_owned);
    name.ok_or_else(|| Status::invalid_argument("the tenant certificate names no tenant"))
}

#[tonic::async_trait]
impl Login for LoginService {
    async fn login(&self, request: Request<LoginRequest>) -> Answer<LoginResponse> {
        let tenant = tenant(&request, &request.get_ref().tenant_cert)?;
        let jwt_token = self.0.login(&tenant)?;
        Ok(Response::new(LoginResponse { jwt_token }))
    }

    async fn login_admin(&self, request: Request<LoginAdminRequest>) -> Answer<LoginAdminResponse> {
        let shown = tenant(&request, &request.get_ref().admin_tenant_cert)?;
        if shown != ADMINISTRATOR {
            let message = format!("{shown:?} is not the administrator: use Login");
            return Err(Status::permission_denied(message));
        }
        let jwt_token = self.0.login(&request.get_ref().tenant_id)?;
        Ok(Response::new(LoginAdminResponse { jwt_token }))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Answer<LogoutResponse> {
        let token = token(&request);
        self.0.check(token)?;
        self.0.logout(token.unwrap_or_default());
        Ok(Response::new(LogoutResponse {}))
    }
}

/// Service Gateway.
pub(crate) struct GatewayService {
    pub(crate) master: Arc<Master>,
    pub(crate) front: Arc<Front>,
}

#[tonic::async_trait]
impl gateway_server::Gateway for GatewayService {
    type SubscribeStatusStream =
        Pin<Box<dyn Stream<Item = Result<StatusChange, Status>> + Send + 'static>>;

    async fn get_list(&self, request: Request<GetListRequest>) -> Answer<GetListResponse> {
        self.master.check(token(&request))?;
        Ok(Response::new(GetListResponse { gateway_i_ds: self.master.gateway_ids() }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        self.master.check(token(&request))?;
        let gateway_infos = self.master.infos(&request.into_inner().gateway_i_ds)?;
        Ok(Response::new(GetResponse { gateway_infos }))
    }

    async fn subscribe_status(
        &self,
        request: Request<SubscribeStatusRequest>,
    ) -> Answer<Self::SubscribeStatusStream> {
        self.master.check(token(&request))?;
        let queue_size = request.into_inner().queue_size;
        subscribe(self.master.subscribe(queue_size)?, &self.front).await
    }
}
