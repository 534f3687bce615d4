//! The build script of every component that has no other: links its release binary at a fixed address.
//!
//! Without relocations, a tenth of the file, which the loader would read and write at every start, a process takes
//! less memory. Upstream's binaries are linked so, too.

fn main() {
    println!("cargo::rerun-if-changed=../component/link.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
