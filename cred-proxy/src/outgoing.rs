//! The head of a request on its way to an upstream. It is made of the agent's as often as it is sent: written at once for
//! HTTP/1.1, without a list of headers in between, and built for what the library speaks.

use crate::inject::{each_request_header, request_headers};
use crate::table::{Route, Table};
use crate::upload::Upload;
use crate::websocket::Upgrade;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri, Version, header};

/// The head.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The table that the route is of.
    pub table: &'a Table,
    /// The route, which was decided on.
    pub route: &'a Route,
    /// The method.
    pub method: &'a Method,
    /// Path and query, as they were decided on.
    pub target: &'a str,
    /// The agent's headers.
    pub headers: &'a HeaderMap,
    /// The other protocol that it asks for.
    pub upgrade: Upgrade,
}

impl Outgoing<'_> {
    /// Changes nothing at the upstream, however often it is sent (RFC 9110, 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Writes it for HTTP/1.1, up to what frames a body and the empty line. A proxy on the way wants the whole URL.
    pub fn write(&self, whole_url: bool, out: &mut Vec<u8>) {
        let mut put = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        put(&[self.method.as_str().as_bytes(), b" "]);
        if whole_url {
            let upstream = &self.route.upstream;
            put(&[upstream.origin.scheme.as_str().as_bytes(), b"://", upstream.host_header.as_bytes()]);
        }
        put(&[self.target.as_bytes(), b" HTTP/1.1\r\n"]);
        each_request_header(self.table, self.route, self.headers, self.upgrade, |name, value| {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        });
    }

    /// As HTTP/1.1 has it, for the library.
    pub fn one(&self, whole_url: bool, upload: Upload) -> Result<Request<Upload>, http::Error> {
        let uri = if whole_url { self.url()? } else { Uri::from(PathAndQuery::try_from(self.target)?) };
        Ok(self.request(uri, Version::HTTP_11, upload))
    }

    /// As HTTP/2 has it (RFC 9113, 8.3.1): the URL whole, no Host, nothing about a connection.
    pub fn two(&self, upload: Upload) -> Result<Request<Upload>, http::Error> {
        let mut request = self.request(self.url()?, Version::HTTP_2, upload);
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        Ok(request)
    }

    fn url(&self) -> Result<Uri, http::Error> {
        let upstream = &self.route.upstream;
        let uri = Uri::builder().scheme(upstream.origin.scheme.as_str()).authority(upstream.host_header.as_bytes());
        uri.path_and_query(self.target).build()
    }

    fn request(&self, uri: Uri, version: Version, upload: Upload) -> Request<Upload> {
        let mut request = Request::new(upload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = request_headers(self.table, self.route, self.headers, self.upgrade);
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::config::{Auth, Config};
    use std::collections::BTreeMap;

    #[test]
    fn it_is_the_same_head_in_every_protocol() {
        let route = crate::config::Route {
            path: "/".into(),
            upstream: "https://a.example:8443".into(),
            auth: Auth::Bearer,
            secret: Some("key".into()),
            inspected: false,
            allow: vec![],
        };
        let config = Config { routes: vec![route], ..Config::closed(([127, 0, 0, 1], 0).into()) };
        let table = Table::parse(&config, &BTreeMap::from([("key".into(), Secret::new("k3y".into()))])).unwrap();
        let agents = [("host", "cred-proxy"), ("accept", "a"), ("accept", "b"), ("cookie", "c"), ("te", "trailers")];
        let mut headers = HeaderMap::new();
        for (name, value) in agents {
            headers.append(name, value.parse().unwrap());
        }
        let (route, method, upgrade) = (&table.routes[0], &Method::DELETE, Upgrade::None);
        let head = Outgoing { table: &table, route, method, target: "/x?y=%20", headers: &headers, upgrade };
        assert!(!head.is_safe() && Outgoing { method: &Method::GET, ..head }.is_safe());
        let fields = "host: a.example:8443\r\naccept: a\r\naccept: b\r\naccept-encoding: identity\r\nte: trailers\r\n\
                      connection: te\r\nauthorization: Bearer k3y\r\n";
        for (whole_url, target) in [(false, "/x?y=%20"), (true, "https://a.example:8443/x?y=%20")] {
            let mut written = Vec::new();
            head.write(whole_url, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), format!("DELETE {target} HTTP/1.1\r\n{fields}"));
            let request = head.one(whole_url, Upload::empty()).unwrap();
            assert_eq!((request.uri().to_string().as_str(), request.version()), (target, Version::HTTP_11));
            assert_eq!(request.method(), method);
            assert_eq!(request.headers()["host"], "a.example:8443");
        }
        let request = head.two(Upload::empty()).unwrap();
        assert_eq!(request.uri(), "https://a.example:8443/x?y=%20");
        assert_eq!(request.version(), Version::HTTP_2);
        let names = ["host", "connection", "te", "authorization"].map(|name| request.headers().contains_key(name));
        assert_eq!(names, [false, false, true, true]);
    }
}
