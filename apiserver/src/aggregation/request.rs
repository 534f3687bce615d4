//! What a request for a group that others serve is about, as far as its path says.

use http::Method;

use crate::auth::Resource;

/// A path `/apis/GROUP/VERSION/…`, taken apart without knowing its kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural; empty for the group and version themselves.
    pub resource: String,
    /// The part of the object.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object.
    pub name: String,
    watch: bool,
}

/// Group and version of a path.
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix("/apis/")?.split('/');
    let (group, version) = (parts.next()?, parts.next()?);
    (!group.is_empty() && !version.is_empty()).then_some((group, version))
}

impl Named {
    /// Takes a path apart.
    pub fn parse(path: &str) -> Option<Self> {
        let (group, version) = group_version(path)?;
        let mut named = Self { group: group.into(), version: version.into(), ..Self::default() };
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').skip(3).collect();
        if parts.first() == Some(&"watch") && parts.len() > 1 {
            named.watch = true;
            parts.remove(0);
        }
        if let ["namespaces", namespace, rest @ ..] = parts.as_slice()
            && !rest.is_empty()
        {
            named.namespace = (*namespace).into();
            parts = rest.to_vec();
        }
        let mut parts = parts.into_iter().map(str::to_owned);
        named.resource = parts.next().unwrap_or_default();
        named.name = parts.next().unwrap_or_default();
        named.subresource = parts.next().unwrap_or_default();
        Some(named)
    }

    /// Upstream's verb.
    pub fn verb(&self, method: &Method, watch: bool) -> &'static str {
        match (method.as_str(), self.name.is_empty()) {
            ("GET" | "HEAD", true) if watch || self.watch => "watch",
            ("GET" | "HEAD", _) if self.watch => "watch",
            ("GET" | "HEAD", true) => "list",
            ("GET" | "HEAD", false) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            _ => "",
        }
    }

    /// What must be allowed.
    pub fn resource(&self) -> Resource<'_> {
        Resource {
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            field_selector: "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_they_are_about() {
        let check = |method: Method, path: &str, wanted: &str| {
            let named = Named::parse(path).expect("a path");
            let (verb, r) = (named.verb(&method, false), named.resource());
            let seen = format!("{verb} {} {}/{} {}", r.resource, r.namespace, r.name, r.subresource);
            assert_eq!(seen, wanted, "{path}");
        };
        check(Method::GET, "/apis/m.io/v1/pods", "list pods / ");
        check(Method::GET, "/apis/m.io/v1/namespaces/d/pods/p", "get pods d/p ");
        check(Method::GET, "/apis/m.io/v1/namespaces/d", "get namespaces /d ");
        check(Method::GET, "/apis/m.io/v1/watch/namespaces/d/pods/p", "watch pods d/p ");
        check(Method::PUT, "/apis/m.io/v1/namespaces/d/pods/p/status", "update pods d/p status");
        check(Method::DELETE, "/apis/m.io/v1/nodes", "deletecollection nodes / ");
        check(Method::POST, "/apis/m.io/v1/nodes/", "create nodes / ");
        assert!(Named::parse("/apis/m.io/v1").is_some_and(|n| n.resource.is_empty()));
        assert!(Named::parse("/apis/m.io").is_none() && Named::parse("/api/v1/pods").is_none());
    }
}
