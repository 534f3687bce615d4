//! Collects the schemas of all kinds, with their descriptions, into one compressed file.
//!
//! They are code in `k8s-openapi` (feature `schemars`). That feature is on for this program alone, so that neither the
//! servers nor their memory carry what is read once in a while: the file stays on disk until somebody asks for it.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization, autoscaling::v1 as autoscaling,
    autoscaling::v2 as autoscaling_v2, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use serde_json::{Map, Value};

macro_rules! add {
    ($generator:ident: $($group:ident { $($kind:ident)+ })+) => {
        $($({ let _ = $generator.subschema_for::<$group::$kind>(); })+)+
    };
}

fn main() {
    // As component/link.rs.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let mut generator = SchemaGenerator::default();
    add! { generator:
        core {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        }
        apps { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        batch { CronJob Job }
        autoscaling { HorizontalPodAutoscaler Scale }
        autoscaling_v2 { HorizontalPodAutoscaler }
        policy { Eviction PodDisruptionBudget }
        networking { Ingress IngressClass NetworkPolicy IPAddress ServiceCIDR }
        discovery { EndpointSlice }
        events { Event }
        coordination { Lease }
        node { RuntimeClass }
        scheduling { PriorityClass }
        storage { CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass }
        rbac { ClusterRole ClusterRoleBinding Role RoleBinding }
        certificates { CertificateSigningRequest }
        admissionregistration {
            MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
            ValidatingWebhookConfiguration
        }
        flowcontrol { FlowSchema PriorityLevelConfiguration }
        resource { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        authentication { SelfSubjectReview TokenRequest TokenReview }
        authorization { LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview }
        apiextensions { CustomResourceDefinition }
        apiregistration { APIService }
        meta { DeleteOptions Status }
    }
    let definitions: Map<String, Value> = generator.take_definitions(true);
    assert!(definitions.contains_key("io.k8s.api.core.v1.PodSpec"), "the schemas have other names");
    let json = serde_json::to_vec(&definitions).expect("JSON values always encode");
    let path = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("schemas.json.z");
    let file = std::fs::File::create(&path).expect("cargo's folder can be written to");
    let mut encoder = ZlibEncoder::new(file, Compression::best());
    encoder
        .write_all(&json)
        .and_then(|()| encoder.finish().map(drop))
        .expect("cargo's folder can be written to");
}
