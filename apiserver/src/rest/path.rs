//! What a path names.

use api::{Kind, Subresource};

use crate::custom::Table;

/// A resource path, taken apart.
#[derive(Clone, Debug)]
pub struct ResourcePath {
    /// The kind of the resource.
    pub kind: &'static Kind,
    /// The namespace; empty for cluster-scoped kinds and for all namespaces.
    pub namespace: String,
    /// The name; empty for the collection.
    pub name: String,
    /// The subresource.
    pub subresource: Option<Subresource>,
    /// The path began with the deprecated `watch/`.
    pub watch: bool,
    /// What follows `proxy`, as it was written: empty, or a path.
    pub tail: String,
}

/// Takes a path apart. Nothing when it names no resource of the table.
pub fn parse(table: &Table, path: &str) -> Option<ResourcePath> {
    let (own, tail) = split_proxy(path);
    Some(ResourcePath { tail: tail.to_owned(), ..parse_own(table, own)? })
}

/// Splits a path behind the subresource `proxy`: what follows is not for this server to understand.
fn split_proxy(path: &str) -> (&str, &str) {
    let depth = match path.strip_prefix("/api/v1/") {
        Some(rest) if rest.starts_with("namespaces/") => 7,
        Some(rest) if rest.starts_with("nodes/") => 5,
        _ => return (path, ""),
    };
    let ends = path.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(at, _)| at);
    let at = ends.chain([path.len()]).nth(depth - 1);
    match at.map(|at| path.split_at(at)) {
        Some((own, tail)) if own.ends_with("/proxy") => (own, tail),
        _ => (path, ""),
    }
}

fn parse_own(table: &Table, path: &str) -> Option<ResourcePath> {
    let mut segments = Vec::new();
    for segment in path.trim_matches('/').split('/') {
        segments.push(percent_decode(segment)?);
    }
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !group.is_empty() => (*group, *version, rest),
        _ => return None,
    };
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let find = |plural: &str| table.resource(group, version, plural);
    let make = |kind: &'static Kind, namespace: &str, name: &str, sub: Option<&str>| {
        let subresource = match sub {
            Some(sub) => Some(kind.subresource(sub)?),
            None => None,
        };
        let (namespace, name, tail) = (namespace.to_owned(), name.to_owned(), String::new());
        Some(ResourcePath { kind, namespace, name, subresource, watch, tail })
    };
    match rest {
        // A namespace itself and its subresources; anything else beneath it is a resource in it.
        ["namespaces", name, sub] if group.is_empty() && matches!(*sub, "status" | "finalize") => {
            make(find("namespaces")?, "", filled(name)?, Some(sub))
        }
        ["namespaces", namespace, plural] => make(namespaced(find(plural)?)?, filled(namespace)?, "", None),
        ["namespaces", namespace, plural, name] => {
            make(namespaced(find(plural)?)?, filled(namespace)?, filled(name)?, None)
        }
        ["namespaces", namespace, plural, name, sub] => {
            make(namespaced(find(plural)?)?, filled(namespace)?, filled(name)?, Some(sub))
        }
        [plural] => make(find(plural)?, "", "", None),
        [plural, name] => make(cluster_scoped(find(plural)?)?, "", filled(name)?, None),
        [plural, name, sub] => make(cluster_scoped(find(plural)?)?, "", filled(name)?, Some(sub)),
        _ => None,
    }
}

fn filled(segment: &str) -> Option<&str> {
    (!segment.is_empty()).then_some(segment)
}

fn namespaced(kind: &'static Kind) -> Option<&'static Kind> {
    kind.namespaced.then_some(kind)
}

fn cluster_scoped(kind: &'static Kind) -> Option<&'static Kind> {
    (!kind.namespaced).then_some(kind)
}

/// Decodes `%41`. Nothing for a malformed escape, for what is no UTF-8, and for what would be more than one
/// segment or none at all.
fn percent_decode(segment: &str) -> Option<String> {
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| char::from(b?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    let text = String::from_utf8(out).ok()?;
    let strange = text == "." || text == ".." || text.contains(['/', '\0']);
    (!strange).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, wanted: &str) {
        let seen = parse(&TABLE, path).map_or_else(
            || "nothing".into(),
            |p| {
                let sub = p.subresource.map_or("", Subresource::path);
                format!(
                    "{} {}/{} {sub}{}",
                    p.kind.qualified(),
                    p.namespace,
                    p.name,
                    if p.watch { "watch" } else { "" }
                )
            },
        );
        assert_eq!(seen, wanted, "{path}");
    }

    #[test]
    fn what_follows_a_proxy_is_kept_as_it_is() {
        let check = |path: &str, name: &str, tail: &str| {
            let parsed = parse(&TABLE, path).expect("a path");
            assert_eq!((parsed.name.as_str(), parsed.tail.as_str()), (name, tail), "{path}");
            assert_eq!(parsed.subresource, Some(Subresource::Proxy));
        };
        check("/api/v1/namespaces/d/services/web:80/proxy", "web:80", "");
        check("/api/v1/namespaces/d/services/https:web:m/proxy/", "https:web:m", "/");
        check("/api/v1/namespaces/d/pods/p/proxy/a//b%2Fc/../d/", "p", "/a//b%2Fc/../d/");
        check("/api/v1/nodes/n/proxy/metrics/proxy", "n", "/metrics/proxy");
        assert!(parse(&TABLE, "/api/v1/namespaces/d/secrets/s/proxy/x").is_none());
        assert!(parse(&TABLE, "/api/v1/namespaces/d/pods/p/log/x").is_none());
    }

    #[test]
    fn paths_name_resources() {
        check("/api/v1/pods", "pods / ");
        check("/api/v1/pods/", "pods / ");
        check("/api/v1/namespaces/d/pods", "pods d/ ");
        check("/api/v1/namespaces/d/pods/web", "pods d/web ");
        check("/api/v1/namespaces/d/pods/web/log", "pods d/web log");
        check("/api/v1/namespaces/d", "namespaces /d ");
        check("/api/v1/namespaces/d/finalize", "namespaces /d finalize");
        check("/api/v1/namespaces/status", "namespaces /status ");
        check("/api/v1/nodes/n1/status", "nodes /n1 status");
        check("/apis/apps/v1/namespaces/d/deployments/web/scale", "deployments.apps d/web scale");
        check("/api/v1/watch/namespaces/d/pods", "pods d/ watch");
        check("/api/v1/namespaces/d/events/a%2Eb", "events d/a.b ");
        for nothing in [
            "/",
            "/api",
            "/api/v1",
            "/api/v1/unicorns",
            "/api/v2/pods",
            "/apis//v1/pods",
            "/apis/apps/v1/pods",
            "/api/v1/pods/web",
            "/api/v1/namespaces/d/nodes",
            "/api/v1/namespaces//pods",
            "/api/v1/namespaces/d/pods/web/unicorn",
            "/api/v1/namespaces/d/pods/web/log/x",
            "/api/v1/namespaces/d/pods/..",
            "/api/v1/namespaces/d/pods/a%2fb",
            "/api/v1/namespaces/d/pods/%zz",
            "/api/v1/namespaces/d/pods/%ff",
        ] {
            check(nothing, "nothing");
        }
    }

    static TABLE: std::sync::LazyLock<Table> = std::sync::LazyLock::new(Table::default);

    proptest! {
        #[test]
        fn parsing_never_panics(path in "(/(api|apis|v1|namespaces|pods|watch|%[0-9a-f]{0,2}|[a-z.]{0,3})){0,8}") {
            let _ = parse(&TABLE, &path);
        }
    }
}
