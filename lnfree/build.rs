//! Lets binaries, tests and examples find libtorch without LD_LIBRARY_PATH, and compiles `native/`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=native");
    // Set by torch-sys to the folder it linked against. RUNPATH, so that LD_LIBRARY_PATH still wins.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-env=LNFREE_LINKED_LIBTORCH={lib}");
    compile_native(Path::new(&lib));
}

/// Compiles `native/*.cpp`, always optimised: it is there for its speed.
fn compile_native(lib: &Path) {
    let headers: PathBuf = lib.parent().unwrap_or(lib).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // clang 18 and later write the types of template arguments into symbols; libtorch was compiled before that.
        .flag_if_supported("-fclang-abi-compat=17")
        .opt_level(3)
        .warnings(true)
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math")
        // A false alarm about libtorch's headers.
        .flag_if_supported("-Wno-maybe-uninitialized")
        // Vectors are handed over between our own functions alone.
        .flag_if_supported("-Wno-psabi")
        .flag("-isystem")
        .flag(headers.to_string_lossy().as_ref())
        .files(
            [
                "attention",
                "cross_entropy",
                "fake_norm",
                "fold",
                "gelu",
                "linear",
                "matmul",
                "residual",
                "sigma",
                "tiles",
                "token_losses",
                "torch",
            ]
            .map(|name| format!("native/{name}.cpp")),
        )
        .compile("lnfree_native");
}
