//! ClusterRoles for people and for components, and who holds them.

use serde_json::json;

use super::{ALL, Default, EVENTS, READ, Rule, WRITE, binding, metadata, named, role, rule, urls};

const HEALTH: &str = "/healthz /livez /readyz /version /version/";
const EXTENSIONS_WORKLOADS: &str = "daemonsets deployments deployments/rollback deployments/scale ingresses \
    networkpolicies replicasets replicasets/scale replicationcontrollers/scale";

const ADMIN: &[Rule] = &[
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    rule(ALL, "rbac.authorization.k8s.io", "rolebindings roles"),
];

const EDIT: &[Rule] = &[
    rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule("impersonate", "core", "serviceaccounts"),
    rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule("create", "core", "pods/eviction"),
    rule(
        WRITE,
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
         serviceaccounts services services/proxy",
    ),
    rule("create", "core", "serviceaccounts/token"),
    rule(
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(WRITE, "extensions", EXTENSIONS_WORKLOADS),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(ALL, "coordination.k8s.io", "leases"),
    rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

const VIEW: &[Rule] = &[
    rule(
        READ,
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
         replicationcontrollers/scale serviceaccounts services services/status",
    ),
    rule(
        READ,
        "core",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
         resourcequotas resourcequotas/status",
    ),
    rule(READ, "core", "namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
         replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
    ),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
];

/// What any kubelet may do.
pub(super) const NODE: &[Rule] = &[
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
    rule(READ, "core", "services"),
    rule("create get list watch", "core", "nodes"),
    rule("patch update", "core", "nodes/status"),
    rule("patch update", "core", "nodes"),
    EVENTS,
    rule(READ, "core", "pods"),
    rule("create delete", "core", "pods"),
    rule("patch update", "core", "pods/status"),
    rule("create", "core", "pods/eviction"),
    rule(READ, "core", "configmaps secrets"),
    rule("get", "core", "persistentvolumeclaims persistentvolumes"),
    rule("get", "core", "endpoints"),
    rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
    rule("create delete get patch update", "coordination.k8s.io", "leases"),
    rule("get", "storage.k8s.io", "volumeattachments"),
    rule("create", "core", "serviceaccounts/token"),
    rule("get patch update", "core", "persistentvolumeclaims/status"),
    rule(READ, "storage.k8s.io", "csidrivers"),
    rule("create delete get patch update", "storage.k8s.io", "csinodes"),
    rule(READ, "node.k8s.io", "runtimeclasses"),
    rule("get", "resource.k8s.io", "resourceclaims"),
    rule("deletecollection", "resource.k8s.io", "resourceslices"),
    rule(ALL, "resource.k8s.io", "resourceslices"),
    rule("get list watch", "core", "serviceaccounts"),
];

const SCHEDULER: &[Rule] = &[
    EVENTS,
    rule("create", "coordination.k8s.io", "leases"),
    named("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
    rule("create", "coordination.k8s.io", "leasecandidates"),
    rule(ALL, "coordination.k8s.io", "leasecandidates"),
    rule(READ, "core", "nodes"),
    rule("delete get list watch", "core", "pods"),
    rule("create", "core", "bindings pods/binding"),
    rule("patch update", "core", "pods/status"),
    rule(READ, "core", "replicationcontrollers services"),
    rule(READ, "apps extensions", "replicasets"),
    rule(READ, "apps", "statefulsets"),
    rule(READ, "policy", "poddisruptionbudgets"),
    rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    rule(READ, "storage.k8s.io", "csinodes"),
    rule(READ, "core", "namespaces"),
    rule(READ, "storage.k8s.io", "csidrivers"),
    rule(READ, "storage.k8s.io", "csistoragecapacities"),
    rule(READ, "storage.k8s.io", "volumeattachments"),
    rule(READ, "resource.k8s.io", "deviceclasses"),
    rule("get list patch update watch", "resource.k8s.io", "resourceclaims"),
    rule("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
    rule(READ, "resource.k8s.io", "resourceslices"),
];

const CONTROLLER_MANAGER: &[Rule] = &[
    EVENTS,
    rule("create", "coordination.k8s.io", "leases"),
    named("get list update watch", "coordination.k8s.io", "leases", "kube-controller-manager"),
    rule("create", "core", "secrets serviceaccounts"),
    rule("delete", "core", "secrets"),
    rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
    rule("update", "core", "secrets serviceaccounts"),
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    rule("list watch", "*", "*"),
    rule("create", "core", "serviceaccounts/token"),
];

/// Name and rules of the roles without particularities.
const PLAIN: &[(&str, &[Rule])] = &[
    ("cluster-admin", &[rule("*", "*", "*"), urls("*", "*")]),
    (
        "system:auth-delegator",
        &[
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    (
        "system:basic-user",
        &[
            rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            rule("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[rule("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[rule("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving")],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[named("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown")],
    ),
    (
        "system:discovery",
        &[urls(
            "get",
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
        )],
    ),
    (
        "system:heapster",
        &[rule(READ, "core", "events namespaces nodes pods"), rule(READ, "extensions", "deployments")],
    ),
    ("system:kube-aggregator", &[rule(READ, "core", "endpoints services")]),
    ("system:kube-controller-manager", CONTROLLER_MANAGER),
    ("system:kube-dns", &[rule("list watch", "core", "endpoints services")]),
    ("system:kube-scheduler", SCHEDULER),
    (
        "system:kubelet-api-admin",
        &[
            rule(READ, "core", "nodes"),
            rule("proxy", "core", "nodes"),
            rule(
                "*",
                "core",
                "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
            ),
        ],
    ),
    (
        "system:monitoring",
        &[urls("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
    ),
    ("system:node", NODE),
    (
        "system:node-bootstrapper",
        &[rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
    ),
    (
        "system:node-problem-detector",
        &[rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), EVENTS],
    ),
    (
        "system:node-proxier",
        &[
            rule("list watch", "core", "endpoints services"),
            rule(READ, "core", "nodes"),
            EVENTS,
            rule("list watch", "discovery.k8s.io", "endpointslices"),
            rule("list watch", "networking.k8s.io", "servicecidrs"),
        ],
    ),
    (
        "system:persistent-volume-provisioner",
        &[
            rule("create delete get list watch", "core", "persistentvolumes"),
            rule("get list update watch", "core", "persistentvolumeclaims"),
            rule(READ, "storage.k8s.io", "storageclasses"),
            rule("watch", "core", "events"),
            EVENTS,
        ],
    ),
    ("system:public-info-viewer", &[urls("get", HEALTH)]),
    (
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    (
        "system:volume-scheduler",
        &[
            rule("get list patch update watch", "core", "persistentvolumes"),
            rule(READ, "storage.k8s.io", "storageclasses"),
            rule("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
];

/// Roles whose rules are gathered: name, gathered label, own label.
const GATHERED: &[(&str, &str, &[&str])] = &[
    ("admin", "admin", &[]),
    ("edit", "edit", &["rbac.authorization.k8s.io/aggregate-to-admin"]),
    ("view", "view", &["rbac.authorization.k8s.io/aggregate-to-edit"]),
];

const GATHERABLE: &[(&str, &str, &[Rule])] = &[
    ("system:aggregate-to-admin", "rbac.authorization.k8s.io/aggregate-to-admin", ADMIN),
    ("system:aggregate-to-edit", "rbac.authorization.k8s.io/aggregate-to-edit", EDIT),
    ("system:aggregate-to-view", "rbac.authorization.k8s.io/aggregate-to-view", VIEW),
];

const BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["Group system:masters"]),
    ("system:monitoring", &["Group system:monitoring"]),
    ("system:discovery", &["Group system:authenticated"]),
    ("system:basic-user", &["Group system:authenticated"]),
    ("system:public-info-viewer", &["Group system:authenticated", "Group system:unauthenticated"]),
    ("system:node-proxier", &["User system:kube-proxy"]),
    ("system:kube-controller-manager", &["User system:kube-controller-manager"]),
    ("system:kube-dns", &["Account kube-dns"]),
    ("system:kube-scheduler", &["User system:kube-scheduler"]),
    ("system:volume-scheduler", &["User system:kube-scheduler"]),
    ("system:service-account-issuer-discovery", &["Group system:serviceaccounts"]),
    // The Node authorizer does it; the role is there for those who bind it themselves.
    ("system:node", &[]),
];

fn of_cluster(kind: &'static str, document: serde_json::Value) -> Default {
    Default { kind, namespace: "", document }
}

/// The ClusterRoles.
pub(super) fn roles() -> impl Iterator<Item = Default> {
    let gathered = GATHERED.iter().map(|(name, gathers, labels)| {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{gathers}");
        let selectors = json!([{"matchLabels": {label: "true"}}]);
        json!({"metadata": metadata(name, labels), "aggregationRule": {"clusterRoleSelectors": selectors}})
    });
    let gatherable = GATHERABLE.iter().map(|(name, label, rules)| {
        let mut role = role(name, rules);
        role["metadata"] = metadata(name, &[label]);
        role
    });
    let plain = PLAIN.iter().map(|(name, rules)| role(name, rules));
    plain.chain(gatherable).chain(gathered).map(|document| of_cluster("ClusterRole", document))
}

/// The ClusterRoleBindings.
pub(super) fn bindings() -> impl Iterator<Item = Default> {
    BINDINGS.iter().map(|(name, subjects)| {
        of_cluster("ClusterRoleBinding", binding(name, "ClusterRole", name, subjects))
    })
}
