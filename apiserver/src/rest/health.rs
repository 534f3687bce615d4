//! `/healthz`, `/livez` and `/readyz`: all checks, all but some, or one by its name.

use axum::body::Body;
use axum::response::Response;
use component::health::Health;
use http::{HeaderValue, StatusCode, header};

use super::query::Parameters;

/// The check that passes whenever the server answers.
const PING: &str = "ping";
/// What `/livez` leaves out: the store and its copies, which no restart of this process would mend.
const NOT_FOR_LIFE: &[&str] = &["etcd"];

/// The answer of a path of health; nothing for any other path.
pub(super) fn answer(health: &Health, path: &str, parameters: &Parameters) -> Option<Response> {
    let mut parts = path.trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().filter(|e| matches!(*e, "healthz" | "livez" | "readyz"))?;
    let mut checks = vec![(PING.to_owned(), Ok(()))];
    checks.extend(health.checks());
    checks.retain(|(name, _)| endpoint != "livez" || !NOT_FOR_LIFE.contains(&name.as_str()));
    let (code, text) = match parts.next() {
        None => {
            let excluded: Vec<&str> = parameters.all("exclude").collect();
            report(endpoint, &checks, &excluded, parameters.flag("verbose"))
        }
        Some(name) => match checks.iter().find(|(known, _)| known == name)? {
            (_, Ok(())) => (StatusCode::OK, "ok".into()),
            (_, Err(why)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        },
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Some(response)
}

/// `ok`, or a line per check when one fails or `verbose` is asked for.
fn report(
    endpoint: &str,
    checks: &[(String, Result<(), String>)],
    excluded: &[&str],
    verbose: bool,
) -> (StatusCode, String) {
    let (mut text, mut failed) = (String::new(), false);
    for (name, result) in checks {
        text += &match result {
            _ if excluded.contains(&name.as_str()) => format!("[+]{name} excluded: ok\n"),
            Ok(()) => format!("[+]{name} ok\n"),
            Err(_) => {
                failed = true;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|e| !checks.iter().any(|(name, _)| name == *e))
        .map(|e| format!("{e:?}"))
        .collect();
    if !unknown.is_empty() {
        text +=
            &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", "));
    }
    text += &format!("{endpoint} check {}\n", if failed { "failed" } else { "passed" });
    let code = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    (code, if failed || verbose { text } else { "ok".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use http_body_util::BodyExt;

    fn get(health: &Health, path: &str) -> Option<(u16, String)> {
        let uri: http::Uri = path.parse().expect("a path");
        let parameters = Parameters::parse(&uri).expect("a query");
        let response = answer(health, uri.path(), &parameters)?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().now_or_never().expect("ready").expect("a body").to_bytes();
        Some((code, String::from_utf8_lossy(&body).into_owned()))
    }

    #[test]
    fn checks_are_told_together_one_by_one_or_left_out() {
        let health = Health::new();
        health.check("etcd").failed("no connection");
        health.check("poststarthook/start").ok();
        let check = |path: &str, code: u16, text: &str| {
            assert_eq!(get(&health, path), Some((code, text.to_owned())), "{path}");
        };
        check("/livez", 200, "ok");
        check("/livez?verbose", 200, "[+]ping ok\n[+]poststarthook/start ok\nlivez check passed\n");
        let failed =
            "[+]ping ok\n[-]etcd failed: reason withheld\n[+]poststarthook/start ok\nreadyz check failed\n";
        check("/readyz", 500, failed);
        check("/readyz?exclude=etcd", 200, "ok");
        let excluded = "[+]ping ok\n[+]etcd excluded: ok\n[+]poststarthook/start ok\n\
                        warn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n";
        check("/readyz?verbose&exclude=etcd&exclude=x", 200, excluded);
        check("/readyz/etcd", 500, "internal server error: no connection\n");
        check("/healthz/ping", 200, "ok");
        check("/readyz/poststarthook/start", 200, "ok");
        assert_eq!(get(&health, "/readyz/none"), None);
        assert_eq!(get(&health, "/version"), None);
    }
}
