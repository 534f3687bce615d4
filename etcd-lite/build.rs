//! Generates the code of etcd's API and of the log's own messages.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .bytes(".")
        .compile_protos(&["proto/rpc.proto", "proto/log.proto"], &["proto"])?;
    Ok(())
}
