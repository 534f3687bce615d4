//! The rules of the group `rbac.authorization.k8s.io`.

pub mod binding;
pub mod role;

/// What is wrong with a name of the group: anything goes that fits a path.
pub(crate) fn validate_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if matches!(name, "." | "..") {
        problems.push(format!("may not be '{name}'"));
    }
    for bad in ["/", "%"] {
        if name.contains(bad) {
            problems.push(format!("may not contain '{bad}'"));
        }
    }
    problems
}
