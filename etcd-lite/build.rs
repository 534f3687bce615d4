//! Generates the code of etcd's API and of the log's own messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // As component/link.rs.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    tonic_prost_build::configure()
        .bytes(".")
        .compile_protos(&["proto/rpc.proto", "proto/log.proto"], &["proto"])?;
    Ok(())
}
