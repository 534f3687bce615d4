//! Roles, tokens, impersonation and reviews, on the wire.

use serde_json::{Value, json};

use crate::support::{Http, ISSUER, Server, block_on, text};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const AUTHN: &str = "/apis/authentication.k8s.io/v1";
const AUTHZ: &str = "/apis/authorization.k8s.io/v1";

/// Asks until the answer has the code: what a role says counts a moment after it was written.
#[track_caller]
fn eventually<'a>(http: &'a Http, path: &'a str, code: u16) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let ask = async {
            while http.get(path).await.0 != code {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(std::time::Duration::from_secs(30), ask).await;
        assert!(in_time.is_ok(), "{caller}: GET {path} does not come to answer {code}");
    }
}

fn review(attributes: Value) -> Value {
    json!({"spec": {"resourceAttributes": attributes}})
}

#[test]
fn what_a_role_says_counts_while_it_says_it() {
    block_on(async {
        let server = Server::start().await;
        let (admin, nobody) = (server.http("admin"), server.http("nobody"));
        let pods = "/api/v1/namespaces/default/pods";
        let (code, error) = nobody.get(pods).await;
        assert_eq!(code, 403);
        assert_eq!(
            text(&error, "/message"),
            "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let role = json!({"metadata": {"name": "look"}, "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
        ]});
        let path = format!("{RBAC}/namespaces/default/roles");
        admin.create(&path, role).await;
        let binding = json!({
            "metadata": {"name": "look"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"},
            "subjects": [{"kind": "Group", "name": "nothing"}],
        });
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        let made = admin.create(&bindings, binding.clone()).await;
        assert_eq!(text(&made, "/subjects/0/apiGroup"), "rbac.authorization.k8s.io");
        eventually(&nobody, pods, 200).await;
        assert_eq!(nobody.get("/api/v1/namespaces/kube-system/pods").await.0, 403);
        assert_eq!(nobody.get("/api/v1/pods").await.0, 403);

        let attributes = json!({"verb": "list", "resource": "pods", "namespace": "default"});
        let (code, answer) =
            nobody.post(&format!("{AUTHZ}/selfsubjectaccessreviews"), &review(attributes.clone())).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(true)), "{answer}");
        assert!(
            text(&answer, "/status/reason").contains("RoleBinding \"look/default\" of Role \"look\""),
            "{answer}"
        );
        let mut other = review(attributes);
        other["spec"]["user"] = "somebody".into();
        let (code, answer) = admin.post(&format!("{AUTHZ}/subjectaccessreviews"), &other).await;
        assert_eq!((code, &answer["status"]["allowed"]), (201, &json!(false)), "{answer}");
        assert_eq!(nobody.post(&format!("{AUTHZ}/subjectaccessreviews"), &other).await.0, 403);
        let (code, answer) = nobody
            .post(&format!("{AUTHZ}/selfsubjectrulesreviews"), &json!({"spec": {"namespace": "default"}}))
            .await;
        assert_eq!(code, 201);
        let rules = answer["status"]["resourceRules"].as_array().expect("a list");
        assert!(
            rules.iter().any(|r| r["resources"] == json!(["pods"]) && r["verbs"] == json!(["get", "list"])),
            "{answer}"
        );
        assert_eq!(admin.post(&format!("{AUTHZ}/subjectaccessreviews"), &json!({"spec": {}})).await.0, 422);

        assert_eq!(admin.delete(&format!("{bindings}/look"), "").await.0, 200);
        eventually(&nobody, pods, 403).await;
    });
}

#[test]
fn nobody_gives_away_more_than_he_has() {
    block_on(async {
        let server = Server::start().await;
        let (admin, nobody) = (server.http("admin"), server.http("nobody"));
        let subjects = json!([{"kind": "User", "name": "nobody"}]);
        let reference = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        // The role `admin` is gathered by a controller, which does not run here.
        let role = json!({"metadata": {"name": "chief"}, "rules": [
            {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"]},
            {"verbs": ["create", "get", "list"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"]},
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
        ]});
        admin.create(&format!("{RBAC}/namespaces/default/roles"), role).await;
        let binding = json!({"metadata": {"name": "chief"}, "roleRef": reference("Role", "chief"), "subjects": subjects});
        admin.create(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
        eventually(&nobody, "/api/v1/namespaces/default/pods", 200).await;

        let roles = format!("{RBAC}/namespaces/default/roles");
        let role = |verb: &str| json!({"metadata": {"name": verb}, "rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]});
        assert_eq!(nobody.post(&roles, &role("get")).await.0, 201);
        let (code, error) = nobody.post(&roles, &role("delete")).await;
        assert_eq!(code, 403);
        assert!(text(&error, "/message").contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"), "{error}");
        let bindings = format!("{RBAC}/namespaces/default/rolebindings");
        let to = |kind: &str, name: &str| json!({"metadata": {"generateName": "x"}, "roleRef": reference(kind, name), "subjects": subjects});
        // `*` on bindings is not `bind` on roles.
        assert_eq!(nobody.post(&bindings, &to("ClusterRole", "cluster-admin")).await.0, 403);
        assert_eq!(nobody.post(&bindings, &to("Role", "get")).await.0, 201);
        let (code, error) = nobody.post(&bindings, &to("Role", "none")).await;
        assert_eq!(code, 404, "{error}");
        let path = format!("{RBAC}/clusterroles/cluster-admin");
        let (_, chief) = admin.get(&path).await;
        assert_eq!(text(&chief, "/metadata/labels/kubernetes.io~1bootstrapping"), "rbac-defaults");
        let (code, error) = admin
            .put(
                &format!("{RBAC}/clusterrolebindings/system:basic-user"),
                &json!({
                    "metadata": {"name": "system:basic-user"}, "roleRef": reference("ClusterRole", "view"),
                }),
            )
            .await;
        assert_eq!(code, 422, "{error}");
        assert!(text(&error, "/message").contains("cannot change roleRef"), "{error}");
    });
}

async fn token(admin: &Http, account: &str, spec: Value) -> String {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let (code, made) = admin.post(&path, &json!({"spec": spec})).await;
    assert_eq!(code, 201, "{made}");
    text(&made, "/status/token").to_owned()
}

#[test]
fn a_token_opens_what_its_account_may_and_ends_with_it() {
    block_on(async {
        let server = Server::start().await;
        let (admin, anonymous) = (server.http("admin"), server.anonymous());
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        admin.create(accounts, json!({"metadata": {"name": "robot"}})).await;
        let robot =
            anonymous.with("authorization", &format!("Bearer {}", token(&admin, "robot", json!({})).await));
        let (code, error) = robot.get("/api/v1/namespaces/default/configmaps").await;
        assert_eq!(code, 403);
        assert!(
            text(&error, "/message").contains("User \"system:serviceaccount:default:robot\" cannot list"),
            "{error}"
        );
        let (code, me) = robot.post(&format!("{AUTHN}/selfsubjectreviews"), &json!({})).await;
        assert_eq!(code, 201, "{me}");
        let groups =
            json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
        assert_eq!(me["status"]["userInfo"]["groups"], groups);
        let binding = json!({
            "metadata": {"name": "robot"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
        });
        admin.create(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
        eventually(&robot, "/api/v1/namespaces/default/configmaps", 200).await;
        assert_eq!(robot.get("/api/v1/nodes").await.0, 403);

        // A token for somebody else is none for the API, but can be reviewed by who knows whom it is for.
        let other = token(&admin, "robot", json!({"audiences": ["vault"]})).await;
        assert_eq!(anonymous.with("authorization", &format!("Bearer {other}")).get("/api").await.0, 401);
        let reviews = format!("{AUTHN}/tokenreviews");
        let ask = |audiences: Value| json!({"spec": {"token": other, "audiences": audiences}});
        let (code, answer) = admin.post(&reviews, &ask(json!(["vault", "x"]))).await;
        assert_eq!((code, &answer["status"]["authenticated"]), (201, &json!(true)), "{answer}");
        assert_eq!(answer["status"]["audiences"], json!(["vault"]));
        assert_eq!(text(&answer, "/status/user/username"), "system:serviceaccount:default:robot");
        let (_, answer) = admin.post(&reviews, &ask(json!([]))).await;
        assert_eq!(answer["status"]["authenticated"], Value::Null, "{answer}");
        assert!(text(&answer, "/status/error").contains("token audiences"), "{answer}");

        let path = format!("{accounts}/robot/token");
        assert_eq!(admin.post(&path, &json!({"spec": {"expirationSeconds": 5}})).await.0, 422);
        assert_eq!(admin.post(&format!("{accounts}/none/token"), &json!({"spec": {}})).await.0, 404);
        assert_eq!(admin.delete(&format!("{accounts}/robot"), "").await.0, 200);
        // A token that was found good is looked at again after ten seconds.
        eventually(&robot, "/api/v1/namespaces/default/configmaps", 401).await;
        for bad in ["Bearer x", "Bearer a.b.c", "Bearer abcdef.0123456789abcdef"] {
            assert_eq!(anonymous.with("authorization", bad).get("/version").await.0, 401, "{bad}");
        }
    });
}

#[test]
fn others_verify_tokens_by_discovery() {
    block_on(async {
        let server = Server::start().await;
        let (admin, anonymous) = (server.http("admin"), server.anonymous());
        let (code, document) = admin.get("/.well-known/openid-configuration").await;
        assert_eq!(code, 200);
        assert_eq!(document["issuer"], ISSUER);
        assert!(text(&document, "/jwks_uri").ends_with("/openid/v1/jwks"), "{document}");
        let (code, keys) = admin.get("/openid/v1/jwks").await;
        assert_eq!((code, text(&keys, "/keys/0/alg")), (200, "ES256"));
        assert_eq!(anonymous.get("/openid/v1/jwks").await.0, 403);
        admin.create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "a"}})).await;
        let token = token(&admin, "a", json!({})).await;
        let account = anonymous.with("authorization", &format!("Bearer {token}"));
        assert_eq!(account.get("/openid/v1/jwks").await.0, 200);
    });
}

#[test]
fn a_bootstrap_token_opens_the_door_for_a_machine() {
    block_on(async {
        let server = Server::start().await;
        let (admin, anonymous) = (server.http("admin"), server.anonymous());
        let secret = json!({
            "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:test",
            },
        });
        admin.create("/api/v1/namespaces/kube-system/secrets", secret).await;
        let machine = anonymous.with("authorization", "Bearer abcdef.0123456789abcdef");
        eventually(&machine, "/api", 200).await;
        let (_, me) = machine.post(&format!("{AUTHN}/selfsubjectreviews"), &json!({})).await;
        assert_eq!(text(&me, "/status/userInfo/username"), "system:bootstrap:abcdef");
        let groups = json!(["system:bootstrappers", "system:bootstrappers:test", "system:authenticated"]);
        assert_eq!(me["status"]["userInfo"]["groups"], groups);
        assert_eq!(machine.get("/api/v1/secrets").await.0, 403);
    });
}

#[test]
fn one_acts_as_another_where_that_is_allowed() {
    block_on(async {
        let server = Server::start().await;
        let (admin, nobody) = (server.http("admin"), server.http("nobody"));
        let me = format!("{AUTHN}/selfsubjectreviews");
        let anna = admin.with("impersonate-user", "anna").with("impersonate-group", "staff");
        let (_, seen) = anna.post(&me, &json!({})).await;
        assert_eq!(text(&seen, "/status/userInfo/username"), "anna");
        assert_eq!(seen["status"]["userInfo"]["groups"], json!(["staff", "system:authenticated"]));
        let (code, error) = anna.get("/api/v1/nodes").await;
        assert_eq!(code, 403, "{error}");
        let (code, error) = nobody.with("impersonate-user", "anna").get("/api").await;
        assert_eq!(code, 403);
        assert_eq!(
            text(&error, "/message"),
            "users \"anna\" is forbidden: User \"nobody\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        assert_eq!(nobody.with("impersonate-group", "system:masters").get("/api").await.0, 400);
    });
}
