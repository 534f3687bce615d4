//! Generates the gRPC code and the descriptor set that server reflection serves.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("descriptor.bin"))
        .bytes(".")
        .codec_path("crate::codec::LeanCodec")
        .compile_protos(
            &["proto/resources.proto", "proto/node.proto", "proto/decisions.proto"],
            &["proto"],
        )?;
    Ok(())
}
