//! Where requests go, by kind.

use http::Uri;

use super::error::Error;

/// Which protocol carries OTLP protobuf requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

/// An address to which requests are posted.
#[derive(Clone, Debug)]
pub(crate) struct HttpTarget {
    /// `host:port`, for the connection and the `Host` header.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// As shown to people.
    pub(crate) url: String,
}

impl HttpTarget {
    /// `url` with `suffix` added to its path.
    pub(crate) fn parse(option: &'static str, url: &str, suffix: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::BadUrl {
            option,
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let base = parse_base(option, url)?;
        let authority = base.authority().ok_or_else(|| bad("it has no host"))?;
        let port = base.port_u16().unwrap_or(80);
        let host = authority.host();
        let path = base.path_and_query().map_or("/", |p| p.as_str());
        let path = if suffix.is_empty() {
            path.to_owned()
        } else {
            format!("{}{suffix}", path.trim_end_matches('/'))
        };
        let authority = format!("{host}:{port}");
        let url = format!("http://{authority}{path}");
        Ok(Self {
            authority,
            path,
            url,
        })
    }
}

/// An `http` URL; `host:port` alone is taken as one.
pub(crate) fn parse_base(option: &'static str, url: &str) -> Result<Uri, Error> {
    let bad = |reason: String| Error::BadUrl {
        option,
        url: url.to_owned(),
        reason,
    };
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let uri: Uri = full.parse().map_err(|e| bad(format!("not a URL: {e}")))?;
    match uri.scheme_str() {
        Some("http") => Ok(uri),
        Some("https") => Err(bad(
            "TLS is not supported in this release, use http".to_owned()
        )),
        _ => Err(bad("use http://host:port".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_completed() {
        let target =
            HttpTarget::parse("--otlp-http", "http://127.0.0.1:4318", "/v1/traces").unwrap();
        assert_eq!(target.url, "http://127.0.0.1:4318/v1/traces");
        let target = HttpTarget::parse("--otlp-http", "node:1/base/", "/v1/metrics").unwrap();
        assert_eq!(
            (&*target.authority, &*target.path),
            ("node:1", "/base/v1/metrics")
        );
        let target = HttpTarget::parse("--remote-write", "http://[::1]/api/v1/write", "").unwrap();
        assert_eq!(
            (&*target.authority, &*target.path),
            ("[::1]:80", "/api/v1/write")
        );
    }

    #[test]
    fn other_schemes_are_refused_in_words() {
        for url in ["https://a:1", "ftp://a", "http://", "not a url"] {
            let error = HttpTarget::parse("--endpoint", url, "")
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("--endpoint"), "{error}");
        }
    }
}
