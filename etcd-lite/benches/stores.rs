//! Compares embedded stores on what etcd-lite asks of one: group-committed durable writes of 1 KiB, ranges of
//! 10,000, opening, disk, memory and the bytes that a lonely small commit costs.
//!
//! Every store runs in a process of its own, so that memory and I/O are its own. Arguments: a folder on the disk to
//! measure (by default the system's temporary one).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const VALUE: usize = 1024;
const RECORDS: u64 = 50_000;
const RANGE: u64 = 10_000;

trait Store: Sized {
    fn open(dir: &Path) -> Self;
    /// Durable when it returns.
    fn commit(&mut self, puts: &[(u64, &[u8])], removes: &[u64]);
    fn get(&self, id: u64) -> Option<Vec<u8>>;
    /// Gives space back.
    fn compact(&mut self);
}

struct Redb(redb::Database);
const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("records");

impl Store for Redb {
    fn open(dir: &Path) -> Self {
        let mut builder = redb::Database::builder();
        builder.set_cache_size(8 << 20);
        Self(builder.create(dir.join("db")).unwrap())
    }
    fn commit(&mut self, puts: &[(u64, &[u8])], removes: &[u64]) {
        let transaction = self.0.begin_write().unwrap();
        {
            let mut table = transaction.open_table(TABLE).unwrap();
            for (id, value) in puts {
                table.insert(id, value).unwrap();
            }
            for id in removes {
                table.remove(id).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    fn get(&self, id: u64) -> Option<Vec<u8>> {
        use redb::ReadableDatabase as _;
        let table = self.0.begin_read().unwrap().open_table(TABLE).unwrap();
        table.get(id).unwrap().map(|v| v.value().to_vec())
    }
    fn compact(&mut self) {
        self.0.compact().unwrap();
    }
}

struct Fjall(fjall::Database, fjall::Keyspace);

impl Store for Fjall {
    fn open(dir: &Path) -> Self {
        let db = fjall::Database::builder(dir).cache_size(8 << 20).worker_threads(1).open().unwrap();
        let options = || fjall::KeyspaceCreateOptions::default().max_memtable_size(4 << 20);
        let keyspace = db.keyspace("records", options).unwrap();
        Self(db, keyspace)
    }
    fn commit(&mut self, puts: &[(u64, &[u8])], removes: &[u64]) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
        for (id, value) in puts {
            batch.insert(&self.1, id.to_be_bytes(), *value);
        }
        for id in removes {
            batch.remove(&self.1, id.to_be_bytes());
        }
        batch.commit().unwrap();
    }
    fn get(&self, id: u64) -> Option<Vec<u8>> {
        self.1.get(id.to_be_bytes()).unwrap().map(|v| v.to_vec())
    }
    fn compact(&mut self) {
        self.1.rotate_memtable_and_wait().unwrap();
        self.1.major_compact().unwrap();
    }
}

struct Sqlite(rusqlite::Connection);

impl Store for Sqlite {
    fn open(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("db")).unwrap();
        db.execute_batch(
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             PRAGMA cache_size=-8192; PRAGMA wal_autocheckpoint=2000;
             CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
        )
        .unwrap();
        Self(db)
    }
    fn commit(&mut self, puts: &[(u64, &[u8])], removes: &[u64]) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        {
            let mut insert = self.0.prepare_cached("INSERT INTO records VALUES(?1,?2)").unwrap();
            for (id, value) in puts {
                insert.execute((*id as i64, value)).unwrap();
            }
            let mut delete = self.0.prepare_cached("DELETE FROM records WHERE id=?1").unwrap();
            for id in removes {
                delete.execute((*id as i64,)).unwrap();
            }
        }
        self.0.execute_batch("COMMIT").unwrap();
    }
    fn get(&self, id: u64) -> Option<Vec<u8>> {
        let mut select = self.0.prepare_cached("SELECT value FROM records WHERE id=?1").unwrap();
        let mut rows = select.query((id as i64,)).unwrap();
        rows.next().unwrap().map(|row| row.get(0).unwrap())
    }
    fn compact(&mut self) {
        self.0.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    }
}

/// What the disk itself allows: one file, appended to and synced. It neither checks nor compacts.
struct Floor(fs::File, std::collections::HashMap<u64, (u64, u32)>, u64);

impl Store for Floor {
    fn open(dir: &Path) -> Self {
        let file = fs::File::options().create(true).append(true).read(true).open(dir.join("log")).unwrap();
        let bytes = fs::read(dir.join("log")).unwrap();
        let (mut index, mut at) = (std::collections::HashMap::new(), 0usize);
        while at + 12 <= bytes.len() {
            let id = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
            let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap());
            index.insert(id, (at as u64 + 12, length));
            at += 12 + length as usize;
        }
        Self(file, index, bytes.len() as u64)
    }
    fn commit(&mut self, puts: &[(u64, &[u8])], removes: &[u64]) {
        use std::io::Write;
        let mut buffer = Vec::new();
        for (id, value) in puts.iter().copied().chain(removes.iter().map(|id| (*id, &b""[..]))) {
            buffer.extend(id.to_be_bytes());
            buffer.extend((value.len() as u32).to_be_bytes());
            self.1.insert(id, (self.2 + buffer.len() as u64, value.len() as u32));
            buffer.extend(value);
        }
        self.0.write_all(&buffer).unwrap();
        self.0.sync_data().unwrap();
        self.2 += buffer.len() as u64;
    }
    fn get(&self, id: u64) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let (at, length) = *self.1.get(&id)?;
        let mut value = vec![0; length as usize];
        self.0.read_exact_at(&mut value, at).unwrap();
        Some(value)
    }
    fn compact(&mut self) {}
}

fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|l| l.starts_with("write_bytes:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn disk(dir: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0.0;
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        sum += if meta.is_dir() { disk(&entry.path()) } else { meta.blocks() as f64 * 512.0 / 1e6 };
    }
    sum
}

/// Bytes that do not compress, the same in every run.
fn value(id: u64, size: usize) -> Vec<u8> {
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

fn write<S: Store>(dir: &Path) -> Vec<String> {
    let mut store = S::open(dir);
    let mut id = 0;
    let mut cells = Vec::new();
    for (group, records) in [(1, 2_000), (32, 16_000), (256, RECORDS - 18_000)] {
        let began = Instant::now();
        let end = id + records;
        while id < end {
            let ids = id..(id + group).min(end);
            let values: Vec<_> = ids.clone().map(|id| (id, value(id, VALUE))).collect();
            let puts: Vec<_> = values.iter().map(|(id, value)| (*id, value.as_slice())).collect();
            store.commit(&puts, &[]);
            id = ids.end;
        }
        cells.push(format!("{:.0}", records as f64 / began.elapsed().as_secs_f64()));
    }
    let before = written();
    for id in id..id + 1000 {
        store.commit(&[(id, &value(id, 500))], &[]);
    }
    cells.push(format!("{:.1}", (written() - before) as f64 / 1000.0 / 1024.0));
    cells.push(format!("{:.1}", memory()));
    cells.push(format!("{:.0}", disk(dir)));
    cells
}

fn read<S: Store>(dir: &Path) -> Vec<String> {
    let began = Instant::now();
    let mut store = S::open(dir);
    let opened = began.elapsed();
    let mut cells = vec![format!("{:.0}", opened.as_secs_f64() * 1e3)];
    for _ in 0..2 {
        let began = Instant::now();
        for n in 0..RANGE {
            // The order of keys is not that of revisions.
            let id = (n * 7919 + 13) % RECORDS;
            assert_eq!(store.get(id).expect("it was written").len(), VALUE);
        }
        cells.push(format!("{:.1}", began.elapsed().as_secs_f64() * 1e3));
    }
    cells.push(format!("{:.1}", memory()));
    let began = Instant::now();
    let all: Vec<u64> = (0..RECORDS).filter(|id| id % 10 != 0).collect();
    for ids in all.chunks(1000) {
        store.commit(&[], ids);
    }
    store.compact();
    cells.push(format!("{:.2}", began.elapsed().as_secs_f64()));
    drop(store);
    cells.push(format!("{:.0}", disk(dir)));
    cells
}

fn child(store: &str, phase: &str, dir: &Path) -> Vec<String> {
    match (store, phase) {
        ("redb", "write") => write::<Redb>(dir),
        ("redb", _) => read::<Redb>(dir),
        ("fjall", "write") => write::<Fjall>(dir),
        ("fjall", _) => read::<Fjall>(dir),
        ("sqlite", "write") => write::<Sqlite>(dir),
        ("sqlite", _) => read::<Sqlite>(dir),
        (_, "write") => write::<Floor>(dir),
        _ => read::<Floor>(dir),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [store, phase, dir] = args.as_slice() {
        println!("{}", child(store, phase, Path::new(dir)).join(" | "));
        return;
    }
    let root = args.first().map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "| store | writes/s, alone | in 32s | in 256s | KiB per commit of 500 B | MB memory | MB disk \
         | ms open | ms range, cold | warm | MB memory | s to drop 90 % | MB disk |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for store in ["redb", "fjall", "sqlite", "floor"] {
        let dir = tempfile::tempdir_in(&root).unwrap();
        let run = |phase: &str| {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([store, phase, dir.path().to_str().unwrap()])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        println!("| {store} | {} | {} |", run("write"), run("read"));
    }
}
