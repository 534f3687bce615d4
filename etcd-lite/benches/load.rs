//! Measures a running server of the etcd API: durable writes of 1 KiB by 1, 32 and 256 clients, reads, ranges.
//!
//! Arguments: the URL, and the id of the server's process, whose memory is shown.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::time::Duration;

use component::tasks::Tasks;
use etcd_client::{Client, GetOptions, PutOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

const SECONDS: u64 = 4;

#[derive(Clone, Copy)]
enum Work {
    Put,
    Get,
    Range,
}

async fn one(client: &mut Client, work: Work, number: u64) {
    let key = format!("/bench/{:06}", number.wrapping_mul(7919) % 20_000);
    match work {
        Work::Put => drop(client.put(key, vec![b'x'; 1024], None::<PutOptions>).await.unwrap()),
        Work::Get => drop(client.get(key, None).await.unwrap()),
        Work::Range => {
            let mut kv = client.kv_client().max_decoding_message_size(64 << 20);
            let options = GetOptions::new().with_prefix().with_limit(10_000);
            kv.get("/bench/", Some(options)).await.unwrap();
        }
    }
}

async fn measure(url: &str, name: &str, work: Work, clients: u64) {
    let tasks = Tasks::new("load");
    let (send, mut times) = mpsc::unbounded_channel();
    // Clients share connections as an API server's requests do.
    let mut connections = Vec::new();
    for _ in 0..clients.min(8) {
        connections.push(Client::connect([url], None).await.unwrap());
    }
    let end = Instant::now() + Duration::from_secs(SECONDS);
    for number in 0..clients {
        let mut client = connections[usize::try_from(number).unwrap() % connections.len()].clone();
        let send = send.clone();
        tasks.spawn("client", async move {
            let mut n = number * 1_000_003;
            while Instant::now() < end {
                let began = Instant::now();
                one(&mut client, work, n).await;
                send.send(began.elapsed()).unwrap();
                n += 1;
            }
        });
    }
    drop(send);
    let mut all = Vec::new();
    while let Some(time) = times.recv().await {
        all.push(time);
    }
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let rate = all.len() as f64 / SECONDS as f64;
    println!("| {name} | {clients} | {rate:.0} | {:.2} | {:.2} |", at(0.5), at(0.99));
}

fn memory(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |key: &str| status.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    format!("{}, {}", of("VmRSS:"), of("VmHWM:"))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let url = args.first().expect("the first argument is a URL").clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("| work | clients | per second | ms p50 | ms p99 |\n| --- | --- | --- | --- | --- |");
    runtime.block_on(async {
        for clients in [1, 32, 256] {
            measure(&url, "put 1 KiB", Work::Put, clients).await;
        }
        for clients in [1, 32, 256] {
            measure(&url, "get", Work::Get, clients).await;
        }
        measure(&url, "range of 10,000", Work::Range, 1).await;
    });
    if let Some(pid) = args.get(1) {
        println!("{}", memory(pid));
    }
}
