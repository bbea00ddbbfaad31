//! Lets the search and its tests find libtorch without LD_LIBRARY_PATH, as lnfree's own build script does for
//! lnfree.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
