//! Leases end on time, also across restarts.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use tokio::time::Instant;

use crate::support::{Server, block_on, soon};

async fn exists(client: &Client, key: &str) -> bool {
    client.kv_client().get(key, None).await.unwrap().count() == 1
}

async fn gone(client: &Client, key: &str) {
    while exists(client, key).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn attached(client: &mut Client, key: &str, ttl: i64) -> i64 {
    let id = client.lease_grant(ttl, None).await.unwrap().id();
    client.put(key, "", Some(PutOptions::new().with_lease(id))).await.unwrap();
    id
}

#[test]
fn keys_end_with_their_lease_unless_it_is_kept_alive() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let began = Instant::now();
        attached(&mut client, "short", 1).await;
        let kept = attached(&mut client, "kept", 2).await;
        let (mut keeper, mut answers) = client.lease_keep_alive(kept).await.unwrap();
        soon("the key ends", gone(&client, "short")).await;
        assert!(began.elapsed() >= Duration::from_secs(1));
        while began.elapsed() < Duration::from_secs(4) {
            keeper.keep_alive().await.unwrap();
            assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 2);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(exists(&client, "kept").await);
        soon("the key ends", gone(&client, "kept")).await;
        keeper.keep_alive().await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl(), 0, "over is over");
        let refused = client.put("late", "", Some(PutOptions::new().with_lease(kept))).await;
        assert!(refused.unwrap_err().to_string().contains("requested lease not found"));
    });
}

#[test]
fn a_restart_neither_forgets_nor_prolongs_a_lease() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let began = Instant::now();
        attached(&mut client, "short", 3).await;
        let long = attached(&mut client, "long", 1000).await;
        drop(client);
        let server = server.restart().await;
        let mut client = server.client().await;
        let left = client.lease_time_to_live(long, None).await.unwrap();
        assert!((900..1000).contains(&left.ttl()) && left.granted_ttl() == 1000, "{left:?}");
        soon("the key ends", gone(&client, "short")).await;
        assert!(began.elapsed() >= Duration::from_secs(3));
        assert!(exists(&client, "long").await);
        client.lease_revoke(long).await.unwrap();
        assert!(!exists(&client, "long").await);
    });
}

#[test]
fn transactions_compare_everything_that_a_key_has() {
    block_on(async {
        let server = Server::start().await;
        let mut client = server.client().await;
        let lease = attached(&mut client, "k", 100).await;
        client.put("k", "v", Some(PutOptions::new().with_lease(lease))).await.unwrap();
        let holds = [
            Compare::version("k", CompareOp::Equal, 2),
            Compare::create_revision("k", CompareOp::Equal, 2),
            Compare::mod_revision("k", CompareOp::Greater, 2),
            Compare::value("k", CompareOp::NotEqual, "w"),
            Compare::lease("k", CompareOp::Equal, lease),
            Compare::version("none", CompareOp::Equal, 0),
            Compare::value("k", CompareOp::Less, "z").with_prefix(),
        ];
        for compare in &holds {
            let txn = Txn::new().when([compare.clone()]);
            assert!(client.txn(txn).await.unwrap().succeeded(), "{compare:?}");
        }
        for compare in [
            Compare::version("k", CompareOp::Greater, 2),
            Compare::value("none", CompareOp::NotEqual, "w"),
            Compare::mod_revision("none", CompareOp::Greater, 0),
        ] {
            let txn = Txn::new().when([compare.clone()]);
            assert!(!client.txn(txn).await.unwrap().succeeded(), "{compare:?}");
        }
        let inner = Txn::new()
            .when([Compare::version("new", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("inner", "1", None), TxnOp::get("new", None)]);
        let all = Some(GetOptions::new().with_all_keys().with_count_only());
        let txn = Txn::new().when(holds).and_then([
            TxnOp::put("new", "1", None),
            TxnOp::txn(inner),
            TxnOp::delete("k", None),
            TxnOp::get("", all),
        ]);
        let response = client.txn(txn).await.unwrap();
        assert!(response.succeeded());
        let revision = response.header().unwrap().revision();
        for key in ["new", "inner"] {
            let kv = client.get(key, None).await.unwrap().kvs()[0].clone();
            assert_eq!((kv.mod_revision(), kv.version()), (revision, 1), "one revision for all of it");
        }
        assert!(!exists(&client, "k").await);
    });
}
