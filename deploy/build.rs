//! Compiles the programs of the built-in images statically, so that they run in containers that hold nothing else.
//!
//! They use the standard library alone, so the compiler is called directly: a second cargo would wait for the lock
//! of the first, and `crt-static` for the whole build would break procedural macros.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    // As component/link.rs.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    println!("cargo::rerun-if-changed=images");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for program in ["pause", "webserver"] {
        compile(program, &out);
    }
}

fn compile(program: &str, out: &Path) {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"))
        .args(["--edition", "2024", "--crate-type", "bin", "--target", &target])
        .args(["-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "opt-level=s"])
        .args(["-C", "lto=thin", "-C", "codegen-units=1", "-C", "strip=symbols"])
        .args([
            "--crate-name",
            program,
            "--cfg",
            "coxswain_static",
            "--check-cfg",
            "cfg(coxswain_static)",
            "-o",
        ])
        .arg(out.join(program))
        .arg(format!("images/{program}.rs"))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            panic!("the static build of {program} failed: {status}; is libc6-dev (libc.a) installed?")
        }
        Err(error) => panic!("could not start the compiler: {error}"),
    }
}
