"""An operator: every Boat has a ConfigMap with its crew, and leaves a note when it goes."""

import kopf
import kubernetes

WHAT = ("example.com", "v1", "boats")


@kopf.on.login()
def login(**kwargs):
    return kopf.login_via_client(**kwargs)


@kopf.on.create(*WHAT)
def create(spec, name, namespace, **_):
    body = {"metadata": {"name": name}, "data": {"crew": str(spec["crew"])}}
    kopf.adopt(body)
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, body)
    return {"made": name}


@kopf.on.update(*WHAT, field="spec.crew")
def update(new, name, namespace, **_):
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"data": {"crew": str(new)}})


@kopf.on.delete(*WHAT)
def delete(name, namespace, **_):
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-gone"}})
