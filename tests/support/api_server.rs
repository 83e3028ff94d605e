//! As much of an API server as a gateway reads: lists, and watches on which nothing ever happens.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use portolan_snapshot::Inputs;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::serve::serve;

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// It answers until it is dropped; connections end with it.
pub struct ApiServer {
    /// Where it answers.
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl ApiServer {
    /// Starts one on a port of its own that has these objects.
    ///
    /// # Panics
    /// There is no port.
    pub async fn start(inputs: Arc<Inputs>) -> Self {
        Self::on(([127, 0, 0, 1], 0).into(), inputs).await
    }

    /// Starts it on an address.
    ///
    /// # Panics
    /// Someone else has it.
    pub async fn on(address: SocketAddr, inputs: Arc<Inputs>) -> Self {
        let socket = TcpListener::bind(address).await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let task = serve(socket, move |request| {
            std::future::ready(answer(&inputs, request.uri().path(), request.uri().query()))
        });
        Self { address, _task: task }
    }
}

fn answer(inputs: &Inputs, path: &str, query: Option<&str>) -> Response<Body> {
    if query.is_some_and(|query| query.contains("watch=true")) {
        let nothing = futures::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
        return Response::new(BodyExt::boxed(StreamBody::new(nothing)));
    }
    match path {
        "/apis/portolan.dev/v1alpha1/namespaces/portolan/mcpgateways" => list(&[&inputs.gateway]),
        "/apis/portolan.dev/v1alpha1/namespaces/default/mcpservers" => list(&inputs.servers),
        "/apis/portolan.dev/v1alpha1/namespaces/default/mcptoolsets" => list(&inputs.toolsets),
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" => list(&inputs.slices),
        "/api/v1/namespaces/portolan/secrets/portolan-gateway-default" => {
            let metadata = json!({"namespace": "portolan", "name": "portolan-gateway-default", "resourceVersion": "1"});
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": inputs.secret});
            full(StatusCode::OK, &secret)
        }
        _ => {
            let message = format!("there is no {path}");
            full(
                StatusCode::NOT_FOUND,
                &json!({"kind": "Status", "status": "Failure", "message": message, "code": 404}),
            )
        }
    }
}

fn list(items: &[impl Serialize]) -> Response<Body> {
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
    full(StatusCode::OK, &list)
}

fn full(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    response
}
