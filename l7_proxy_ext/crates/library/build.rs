//! The library runs in proxy images that are older than the machine it is built on: it may ask for
//! no glibc newer than 2.31 (Debian 11).
//!
//! The linker takes the newest version of a symbol that the machine's glibc has. What moved from
//! libpthread and libdl into libc (2.34), and so got a new version, it finds first in empty
//! libraries of ours under the old one, which every later glibc still has.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Library, its name at run time, symbols. A suffix after `@` is a version of its own.
const MOVED: [(&str, &str, &[&str]); 3] = [
    (
        "libpthread.so",
        "libpthread.so.0",
        &[
            "pthread_create",
            "pthread_join",
            "pthread_detach",
            "pthread_attr_setstacksize",
            "pthread_key_create",
            "pthread_key_delete",
            "pthread_setspecific",
            "pthread_setname_np@GLIBC_2.12",
        ],
    ),
    ("libdl.so", "libdl.so.2", &["dlsym"]),
    ("libstat.so", "libc.so.6", &["__xstat64", "__fxstat64"]),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=glibc/newer.c");
    let of = |name| env::var(name).unwrap_or_default();
    // The oldest version there is of this architecture.
    let base = match of("CARGO_CFG_TARGET_ARCH").as_str() {
        "x86_64" => "GLIBC_2.2.5",
        "aarch64" => "GLIBC_2.17",
        _ => return,
    };
    if of("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    let target = format!("--target={}", of("TARGET").replace("-unknown", ""));
    let run = |arguments: &[&str]| {
        let done = Command::new("clang").arg(&target).args(arguments).status();
        assert!(done.is_ok_and(|status| status.success()), "clang {arguments:?} failed");
    };
    let linker = rusts_linker();
    let out = PathBuf::from(of("OUT_DIR"));
    for (file, name, symbols) in MOVED {
        old_names(&out, file, name, symbols, base, &|arguments| {
            run(&[&["-B", &linker], arguments].concat())
        });
    }
    let object = out.join("newer.o");
    run(&["-c", "-O2", "-fPIC", "glibc/newer.c", "-o", &object.to_string_lossy()]);
    println!("cargo:rustc-cdylib-link-arg={}", object.display());
    println!("cargo:rustc-cdylib-link-arg={}", out.join("libstat.so").display());
    println!("cargo:rustc-link-search=native={}", out.display());
}

/// Rust's own, which links for every target.
fn rusts_linker() -> String {
    let said = Command::new(env::var("RUSTC").expect("cargo says it"))
        .args(["--print", "target-libdir"])
        .output()
        .expect("rustc runs");
    let libraries = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    libraries.with_file_name("bin").join("gcc-ld").to_string_lossy().into_owned()
}

/// A library without code that has these symbols under their old versions.
fn old_names(
    out: &Path,
    file: &str,
    name: &str,
    symbols: &[&str],
    base: &str,
    run: &impl Fn(&[&str]),
) {
    let (mut source, mut versions) = (String::new(), String::new());
    for symbol in symbols {
        let (symbol, version) = symbol.split_once('@').unwrap_or((symbol, base));
        let version = if base == "GLIBC_2.17" { base } else { version };
        source += &format!(
            ".globl {symbol}\n.type {symbol},%function\n.symver {symbol},{symbol}@@@{version}\n{symbol}:\n"
        );
        if !versions.contains(version) {
            versions += &format!("{version} {{}};\n");
        }
    }
    let (assembly, map) =
        (out.join(file).with_extension("s"), out.join(file).with_extension("map"));
    fs::write(&assembly, source).expect("OUT_DIR can be written");
    fs::write(&map, versions).expect("OUT_DIR can be written");
    run(&[
        "-shared",
        "-nostdlib",
        "-fuse-ld=lld",
        &format!("-Wl,-soname,{name}"),
        &format!("-Wl,--version-script={}", map.display()),
        &assembly.to_string_lossy(),
        "-o",
        &out.join(file).to_string_lossy(),
    ]);
}
