//! Creating and changing: generated names, dry run, patches, status, scale, binding, eviction.

use std::collections::BTreeSet;

use api::Kind;
use serde_json::{Value, json};

use crate::samples::{collection, sample};
use crate::support::{Server, block_on, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn kind(group: &str, kind: &str) -> &'static Kind {
    Kind::find(group, kind).unwrap()
}

#[test]
fn names_are_generated_and_distinct() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let mut names = BTreeSet::new();
        for _ in 0..20 {
            let created = http.create(MAPS, json!({"metadata": {"generateName": "gen-"}})).await;
            let name = text(&created, "/metadata/name").to_owned();
            assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 20);
    });
}

#[test]
fn a_dry_run_checks_everything_and_writes_nothing() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let (code, created) =
            http.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await;
        assert_eq!(code, 201, "{created}");
        assert_eq!(http.get(&format!("{MAPS}/a")).await.0, 404);
        let a = http.create(MAPS, json!({"metadata": {"name": "a"}})).await;
        assert_eq!(
            http.post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.0,
            409
        );
        let (code, patched) =
            http.patch(&format!("{MAPS}/a?dryRun=All"), "merge", &json!({"data": {"x": "y"}})).await;
        assert_eq!((code, text(&patched, "/data/x")), (200, "y"));
        assert_eq!(http.delete(&format!("{MAPS}/a?dryRun=All"), "").await.0, 200);
        assert_eq!(http.get(&format!("{MAPS}/a")).await.1, a);
        assert_eq!(http.post(&format!("{MAPS}?dryRun=Sometimes"), &json!({})).await.0, 400);
        let services = "/api/v1/namespaces/default/services";
        let (code, dry) =
            http.post(&format!("{services}?dryRun=All"), &sample(kind("", "Service"), "s")).await;
        assert_eq!(code, 201, "{dry}");
    });
}

#[test]
fn concurrent_patches_all_take_effect() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(MAPS, json!({"metadata": {"name": "busy"}})).await;
        let patches = (0..24).map(|i| {
            let http = server.http("admin");
            async move {
                let (code, value) = http
                    .patch(&format!("{MAPS}/busy"), "merge", &json!({"data": {format!("k{i}"): "v"}}))
                    .await;
                assert_eq!(code, 200, "{value}");
            }
        });
        futures::future::join_all(patches).await;
        let (_, got) = http.get(&format!("{MAPS}/busy")).await;
        assert_eq!(got["data"].as_object().map(serde_json::Map::len), Some(24));
    });
}

#[test]
fn cluster_ips_are_never_handed_out_twice() {
    block_on(async {
        let server = Server::start().await;
        let other = server.another().await;
        let services = "/api/v1/namespaces/default/services";
        let creates = (0..40).map(|i| {
            let http = if i % 2 == 0 { server.http("admin") } else { server.http_at(other, Some("admin")) };
            async move {
                let mut service = sample(kind("", "Service"), &format!("s{i}"));
                service["spec"]["type"] = "NodePort".into();
                let created = http.create(services, service).await;
                let port =
                    created.pointer("/spec/ports/0/nodePort").and_then(Value::as_i64).expect("a node port");
                (text(&created, "/spec/clusterIP").to_owned(), port)
            }
        });
        let given = futures::future::join_all(creates).await;
        assert_eq!(given.iter().map(|g| &g.0).collect::<BTreeSet<_>>().len(), 40);
        assert_eq!(given.iter().map(|g| g.1).collect::<BTreeSet<_>>().len(), 40);
        let http = server.http("admin");
        let mut explicit = sample(kind("", "Service"), "thief");
        explicit["spec"]["clusterIP"] = given[0].0.clone().into();
        let (code, error) = http.post(services, &explicit).await;
        assert_eq!((code, text(&error, "/reason")), (422, "Invalid"), "{error}");
        assert!(text(&error, "/message").contains("provided IP is already allocated"), "{error}");
        // What a deleted Service had can be taken again.
        assert_eq!(http.delete(&format!("{services}/s0"), "").await.0, 200);
        http.create(services, explicit).await;
    });
}

#[test]
fn status_and_spec_are_written_by_their_own_paths() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let web = http.create(DEPLOYMENTS, sample(kind("apps", "Deployment"), "web")).await;
        assert_eq!(web.pointer("/metadata/generation"), Some(&json!(1)));
        let one = format!("{DEPLOYMENTS}/web");
        let both = json!({"spec": {"replicas": 3}, "status": {"replicas": 7}});
        let (code, main) = http.patch(&one, "merge", &both).await;
        assert_eq!(code, 200, "{main}");
        assert_eq!(
            (main.pointer("/spec/replicas"), main.pointer("/status/replicas")),
            (Some(&json!(3)), None)
        );
        assert_eq!(main.pointer("/metadata/generation"), Some(&json!(2)));
        let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 7, "observedGeneration": 2}});
        let (code, status) = http.patch(&format!("{one}/status"), "merge", &both).await;
        assert_eq!(code, 200, "{status}");
        assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(3), &json!(7)));
        assert_eq!(status.pointer("/metadata/generation"), Some(&json!(2)));
    });
}

#[test]
fn a_deployment_is_scaled() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        http.create(DEPLOYMENTS, sample(kind("apps", "Deployment"), "web")).await;
        let scale = format!("{DEPLOYMENTS}/web/scale");
        let (code, seen) = http.get(&scale).await;
        assert_eq!((code, text(&seen, "/kind"), &seen["spec"]["replicas"]), (200, "Scale", &json!(1)));
        assert_eq!(text(&seen, "/status/selector"), "app=web");
        let mut wanted = seen.clone();
        wanted["spec"]["replicas"] = 4.into();
        let (code, scaled) = http.put(&scale, &wanted).await;
        assert_eq!((code, text(&scaled, "/kind"), &scaled["spec"]["replicas"]), (200, "Scale", &json!(4)));
        assert_eq!(http.put(&scale, &wanted).await.0, 409);
        let (code, scaled) = http.patch(&scale, "merge", &json!({"spec": {"replicas": 2}})).await;
        assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(2)));
        let (code, error) = http.patch(&scale, "merge", &json!({"spec": {"replicas": -2}})).await;
        assert_eq!((code, text(&error, "/details/causes/0/field")), (422, "spec.replicas"), "{error}");
    });
}

#[test]
fn a_pod_is_bound_once_and_evicted() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let pod = http.create(PODS, sample(kind("", "Pod"), "p")).await;
        assert_eq!(pod["spec"]["priority"], 0);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2), "{pod}");
        assert_eq!(text(&pod, "/status/phase"), "Pending");
        let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
        let (code, bound) = http.post(&format!("{PODS}/p/binding"), &binding("n1")).await;
        assert_eq!((code, text(&bound, "/status")), (201, "Success"), "{bound}");
        let (code, error) = http.post(&format!("{PODS}/p/binding"), &binding("n2")).await;
        assert_eq!((code, text(&error, "/reason")), (409, "Conflict"), "{error}");
        let (_, pod) = http.get(&format!("{PODS}/p")).await;
        assert_eq!(text(&pod, "/spec/nodeName"), "n1");
        let condition = &pod["status"]["conditions"][0];
        assert_eq!((text(condition, "/type"), text(condition, "/status")), ("PodScheduled", "True"));
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
        let (code, evicted) = http.post(&format!("{PODS}/p/eviction"), &eviction).await;
        assert_eq!((code, text(&evicted, "/status")), (201, "Success"), "{evicted}");
        let (_, pod) = http.get(&format!("{PODS}/p")).await;
        assert_eq!(pod.pointer("/metadata/deletionGracePeriodSeconds"), Some(&json!(30)), "{pod}");
        let condition = &pod["status"]["conditions"][1];
        assert_eq!(
            (text(condition, "/type"), text(condition, "/reason")),
            ("DisruptionTarget", "EvictionByEvictionAPI")
        );
    });
}

#[test]
fn unknown_fields_are_warned_of_or_refused() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let mut pod = sample(kind("", "Pod"), "p");
        pod["spec"]["containers"][0]["imagee"] = "x".into();
        let (code, error) = http.post(&format!("{PODS}?fieldValidation=Strict"), &pod).await;
        assert_eq!(code, 400, "{error}");
        assert!(
            text(&error, "/message").contains("unknown field \\\"spec.containers[0].imagee\\\"")
                || text(&error, "/message").contains("unknown field \"spec.containers[0].imagee\""),
            "{error}"
        );
        let (code, created) = http.post(&format!("{PODS}?fieldValidation=Ignore"), &pod).await;
        assert_eq!(code, 201);
        assert!(created.pointer("/spec/containers/0/imagee").is_none());
    });
}

#[test]
fn yaml_is_accepted_and_other_patches_are_refused() {
    block_on(async {
        let server = Server::start().await;
        let http = server.http("admin");
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: \"1\"\n";
        let (code, created) = http.call(http::Method::POST, MAPS, "application/yaml", yaml).await;
        assert_eq!((code, text(&created, "/data/a")), (201, "1"), "{created}");
        let (code, error) = http
            .call(http::Method::PATCH, &format!("{MAPS}/yaml"), "application/what-patch+yaml", yaml)
            .await;
        assert_eq!((code, text(&error, "/reason")), (415, "UnsupportedMediaType"), "{error}");
        assert_eq!(http.get(&collection(kind("", "ConfigMap"))).await.0, 200);
    });
}
