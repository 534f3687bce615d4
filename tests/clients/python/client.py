"""The Python client: typed, custom objects, the dynamic client and watches."""

import tempfile

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.dynamic.exceptions import NotFoundError

NAMESPACE = "default"


def status_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        return error.status
    return 200


def typed(core, apps):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="typed", labels={"a": "b"}), data={"k": "v"})
    core.create_namespaced_config_map(NAMESPACE, body, dry_run="All")
    assert status_of(core.read_namespaced_config_map, "typed", NAMESPACE) == 404
    core.create_namespaced_config_map(NAMESPACE, body, field_manager="typed")
    assert status_of(core.create_namespaced_config_map, NAMESPACE, body) == 409
    patch = core.patch_namespaced_config_map
    assert patch("typed", NAMESPACE, {"data": {"x": "y"}}).data == {"k": "v", "x": "y"}
    assert patch("typed", NAMESPACE, [{"op": "remove", "path": "/data/x"}]).data == {"k": "v"}
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "typed"}, "data": {"z": "1"}}
    content = {"_content_type": "application/apply-patch+yaml", "field_manager": "applier"}
    assert patch("typed", NAMESPACE, applied, **content).data == {"k": "v", "z": "1"}
    assert len(core.list_namespaced_config_map(NAMESPACE, label_selector="a in (b, c)", limit=1).items) == 1

    labels = {"app": "web"}
    container = client.V1Container(name="web", image="a:1", resources={"requests": {"cpu": "1m"}})
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=0, selector={"matchLabels": labels}, template=template)
    web = client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)
    assert apps.create_namespaced_deployment(NAMESPACE, web).spec.strategy.type == "RollingUpdate"
    assert apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 2}}).spec.replicas == 2
    assert apps.read_namespaced_deployment("web", NAMESPACE).spec.replicas == 2
    changed = apps.patch_namespaced_deployment_status("web", NAMESPACE, {"status": {"collisionCount": 3}})
    assert changed.status.collision_count == 3


def watched(core):
    seen = []
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_config_map, NAMESPACE, label_selector="a", timeout_seconds=60):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "ADDED":
            core.delete_namespaced_config_map("typed", NAMESPACE)
        if event["type"] == "DELETED":
            watcher.stop()
    assert seen == [("ADDED", "typed"), ("DELETED", "typed")], seen
    for kind in (core.list_node, core.list_namespace, core.list_service_for_all_namespaces):
        assert kind().metadata.resource_version


def dynamically(api):
    found = dynamic.DynamicClient(api, cache_file=tempfile.mktemp())
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "b"}}
    maps.create(body=body, namespace=NAMESPACE)
    body["data"]["a"] = "c"
    applied = maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager="dynamic", force_conflicts=True)
    assert applied.data.a == "c"
    merged = {"data": {"q": "1"}}
    changed = maps.patch(body=merged, name="dynamic", namespace=NAMESPACE, content_type="application/merge-patch+json")
    assert changed.data.to_dict() == {"a": "c", "q": "1"}
    boats = found.resources.get(api_version="example.com/v1", kind="Boat")
    boats.create(body={"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "one"}}, namespace=NAMESPACE)
    events = [(e["type"], e["object"].metadata.name) for e in boats.watch(namespace=NAMESPACE, timeout=1)]
    assert events == [("ADDED", "one")], events
    row = client.CustomObjectsApi().patch_namespaced_custom_object(
        "example.com", "v1", NAMESPACE, "boats", "one", {"spec": {"crew": 4}}
    )
    assert row["spec"] == {"crew": 4} and row["metadata"]["generation"] == 2, row
    maps.delete(name="dynamic", namespace=NAMESPACE)
    try:
        maps.get(name="dynamic", namespace=NAMESPACE)
        raise AssertionError("it is still there")
    except NotFoundError as error:
        assert error.status == 404


def main():
    config.load_kube_config()
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    assert client.VersionApi().get_code().minor == "35"
    typed(core, apps)
    watched(core)
    dynamically(client.ApiClient())
    allowed = client.V1SelfSubjectAccessReviewSpec(resource_attributes={"verb": "get", "resource": "pods"})
    review = client.V1SelfSubjectAccessReview(spec=allowed)
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
    core.delete_collection_namespaced_config_map(NAMESPACE)
    # The certificate of the cluster is published again at once.
    left = {item.metadata.name for item in core.list_namespaced_config_map(NAMESPACE).items}
    assert left <= {"kube-root-ca.crt"}, left
    print("all is well")


main()
