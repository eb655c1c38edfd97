//! Compiles `strongroom/v1/*.proto` without protoc.

use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 6] = [
    "strongroom/v1/vault.proto",
    "strongroom/v1/audit.proto",
    "strongroom/v1/access.proto",
    "strongroom/v1/subjects.proto",
    "strongroom/v1/keys.proto",
    "strongroom/v1/system.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=strongroom");
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("strongroom.v1.bin");
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".strongroom.v1")
        // Messages carry values, so none of them can be printed by mistake.
        .skip_debug(["."])
        .codec_path("crate::codec::Codec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
