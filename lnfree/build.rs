//! Lets binaries, tests and examples find libtorch without LD_LIBRARY_PATH.

fn main() {
    // Set by torch-sys to the folder it linked against. RUNPATH, so that LD_LIBRARY_PATH still wins.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-env=LNFREE_LINKED_LIBTORCH={lib}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
