//! A plain HTTP server that stands for another bottle's sidecar: nobody but its own agent should ever reach it.

use crate::listen::{Listening, serve};
use crate::reply::{self, MARK};
use crate::start::StartError;
use crate::witness::Witness;
use bottle_tests::world::Evidence;
use bottle_tests::world::role::NeighbourConfig;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;

/// Binds, says ready and serves.
pub async fn start(config: NeighbourConfig, witness: &Witness) -> Result<(), StartError> {
    let mut listening = Listening::default();
    let listener = listening.tcp("http", config.listen, config.port).await?;
    let port = listener.local_addr().map_or(config.port, |address| address.port());
    listening.ready(witness);
    let witness = *witness;
    serve(listener, move |stream, peer| async move {
        witness.saw(&Evidence::Opened { port, peer });
        let service = hyper::service::service_fn(move |request: Request<Incoming>| async move {
            let headers = reply::headers(&request);
            witness.saw(&Evidence::Request {
                peer,
                sni: None,
                host: headers.get("host").cloned().unwrap_or_default(),
                method: request.method().to_string(),
                path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
                authorization: headers.get("authorization").cloned(),
                headers,
                body_prefix: String::new(),
                body_bytes: 0,
            });
            let mut answer = reply::text(StatusCode::OK, "a neighbour\n");
            reply::header(&mut answer, MARK, "neighbour");
            Ok::<_, Infallible>(answer)
        });
        // A client that goes away in the middle is not our failure.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    Ok(())
}
