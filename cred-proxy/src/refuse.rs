//! What the agent is told when a request does not pass: a status and a fixed sentence, never an upstream's or an
//! error's own words. The reason goes to the log alone.

use crate::framing::Doubt;
use crate::path::PathError;
use http::StatusCode;

/// Why a request does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The framing can be read in two ways.
    #[error("{0}")]
    Framing(Doubt),
    /// The path can be read in two ways.
    #[error("{0}")]
    Path(#[from] PathError),
    /// The target is a whole URL, as one sends it to a forward proxy.
    #[error("the target is not a path")]
    AbsoluteForm,
    /// There is not exactly one Host header.
    #[error("there is not exactly one host header")]
    Host,
    /// CONNECT or TRACE.
    #[error("the method never passes")]
    Method,
    /// An upgrade to another protocol.
    #[error("an upgrade was asked for")]
    Upgrade,
    /// A WebSocket handshake that is none.
    #[error("the websocket handshake is not one of rfc 6455")]
    Handshake,
    /// A push over HTTP.
    #[error("git-receive-pack was asked for")]
    ReceivePack,
    /// A credential, or another method, in the query.
    #[error("the query brings a credential or a method along")]
    Query,
    /// No route has this path.
    #[error("no route has this path")]
    NoRoute,
    /// The route exists but does not permit this.
    #[error("the route does not permit it")]
    NoPermission,
    /// The route was for one request.
    #[error("the route was for one request, which was made")]
    UsedUp,
    /// The proxy on the way out said no.
    #[error("the proxy on the way out refused")]
    ProxyRefused,
    /// The upstream could not be reached, or did not speak HTTP that can be passed on.
    #[error("the upstream failed")]
    Upstream,
    /// The upstream did not answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The reply is encoded in a way that cannot be undone, so that the credential could not be masked in it.
    #[error("the reply is encoded and cannot be masked")]
    Encoded,
    /// The request's body broke off.
    #[error("the request's body broke off")]
    Body,
    /// The request's body is longer than the limit.
    #[error("the request's body is longer than the limit")]
    TooLarge,
    /// As many requests as may be are in flight.
    #[error("too many requests are in flight")]
    Busy,
}

impl Refusal {
    /// The status of the reply.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Framing(_) | Self::Path(_) | Self::AbsoluteForm | Self::Host | Self::Handshake | Self::Body => {
                StatusCode::BAD_REQUEST
            }
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Upgrade => StatusCode::NOT_IMPLEMENTED,
            Self::ReceivePack | Self::Query | Self::NoPermission | Self::UsedUp | Self::ProxyRefused => {
                StatusCode::FORBIDDEN
            }
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Upstream | Self::Encoded => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The whole body of the reply.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Framing(_) | Self::Body => "cred-proxy: the request is malformed.\n",
            Self::Path(_) => {
                "cred-proxy: the path can be read in more than one way (dot segments, encoded or doubled slashes, \
                 parameters). Send the plain path.\n"
            }
            Self::AbsoluteForm => "cred-proxy: this is no forward proxy. Send the path of a route, not a whole URL.\n",
            Self::Host => "cred-proxy: a request has exactly one Host header.\n",
            Self::Method => "cred-proxy: this method never passes.\n",
            Self::Upgrade => "cred-proxy: upgrades other than WebSocket do not pass.\n",
            Self::Handshake => "cred-proxy: this is no WebSocket handshake (RFC 6455, version 13).\n",
            Self::ReceivePack => {
                "cred-proxy: pushes do not pass here. Push to the git remote of this bottle (git-gate).\n"
            }
            Self::Query => {
                "cred-proxy: the query names a credential or a method. The proxy puts the credential in itself.\n"
            }
            Self::NoRoute => "cred-proxy: no route has this path. To reach it, ask the operator for this route.\n",
            Self::NoPermission => {
                "cred-proxy: the route does not permit this method and path. To use it, ask the operator for this route.\n"
            }
            Self::UsedUp => {
                "cred-proxy: the route was for one request, which was made. Ask the operator for another.\n"
            }
            Self::ProxyRefused => "cred-proxy: the proxy on the way out refused the upstream of this route.\n",
            Self::Upstream => {
                "cred-proxy: the upstream of this route could not be reached. The operator's log says why.\n"
            }
            Self::Timeout => "cred-proxy: the upstream of this route did not answer in time.\n",
            Self::TooLarge => "cred-proxy: the request's body is longer than the operator's limit.\n",
            Self::Busy => "cred-proxy: too many requests are in flight. Let some end, then try again.\n",
            Self::Encoded => {
                "cred-proxy: the upstream encoded its reply although it was asked not to, in a way that cannot be checked.\n"
            }
        }
    }
}
