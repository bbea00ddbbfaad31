//! Lets binaries, tests and examples find libtorch without LD_LIBRARY_PATH, and compiles `native/`.

#[path = "build/declarations.rs"]
mod declarations;

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=native");
    println!("cargo:rerun-if-changed={SYMBOLS}");
    // The package goes without some of `data/`.
    println!("cargo:rustc-check-cfg=cfg(whole_data)");
    if OF_THE_REPOSITORY.iter().all(|file| Path::new(file).exists()) {
        println!("cargo:rustc-cfg=whole_data");
    }
    let nothing = write("tch_functions.cpp", "extern \"C\" int lnfree_tch_functions() { return 0; }\n");
    cxx().file(nothing).compile("lnfree_tch_functions");
    // Set by torch-sys to the folder it linked against. RUNPATH, so that LD_LIBRARY_PATH still wins.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    // The folder itself and not a link to it: an installed program outlives the repository that it was built
    // in.
    let lib = std::fs::canonicalize(&lib).map_or(lib, |folder| folder.to_string_lossy().into_owned());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-env=LNFREE_LINKED_LIBTORCH={lib}");
    if std::env::var_os("CARGO_FEATURE_KERNELS").is_some() {
        compile_native(Path::new(&lib));
    }
}

/// What `base/embedded.rs` takes in where it is there.
const OF_THE_REPOSITORY: [&str; 3] = ["data/train.parquet", "data/test.parquet", "data/nano_vanilla200"];

/// What Rust calls of `native/`.
const SYMBOLS: &str = "src/base/ffi/symbols.rs";

/// Operations on tensors, files of `native/`.
const OPERATIONS: [&str; 17] = [
    "attention",
    "cross_entropy",
    "dispatch",
    "fake_norm",
    "fold",
    "gelu",
    "gpu",
    "linear",
    "loops",
    "matmul",
    "process_group",
    "reads",
    "residual",
    "sigma",
    "tiles",
    "token_losses",
    "torch",
];

/// Compiles `native/`, always optimised: it is there for its speed.
fn compile_native(lib: &Path) {
    let headers: PathBuf = lib.parent().unwrap_or(lib).join("include");
    let mut build = cxx();
    // The last are of Gloo, whose own libtorch's packages lack.
    for folder in [headers.clone(), headers.join("torch/csrc/api/include"), PathBuf::from("native")] {
        build.flag("-isystem").flag(folder.to_string_lossy().as_ref());
    }
    let levels = levels();
    if levels.len() > 1 {
        build.define("LNFREE_X86_LEVELS", None);
    }
    for (name, flags) in levels {
        build.objects(compile_loops(name, flags));
    }
    build.file(one_file()).compile("lnfree_native");
}

/// One file that includes all the others, behind the declarations that they have to keep to: reading
/// libtorch's headers takes longer than all the rest.
fn one_file() -> PathBuf {
    let symbols = std::fs::read_to_string(SYMBOLS).unwrap_or_else(|e| panic!("{SYMBOLS}: {e}"));
    let declarations = write("declarations.hpp", &declarations::header(&symbols));
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default().join("native");
    let files = OPERATIONS.iter().map(|name| folder.join(name).with_extension("cpp"));
    let text: String = std::iter::once(declarations)
        .chain(files)
        .map(|f| format!("#include \"{}\"\n", f.display()))
        .collect();
    write("operations.cpp", &text)
}

/// The file `name` of what is made here; an unchanged one keeps its time.
fn write(name: &str, text: &str) -> PathBuf {
    let path = out_dir().join(name);
    if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
        std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    path
}

fn out_dir() -> PathBuf {
    std::env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default()
}

/// The instruction sets that loops are compiled for, with the compiler's flags.
fn levels() -> &'static [(&'static str, &'static [&'static str])] {
    match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => &[
            ("baseline", &[]),
            ("avx2", &["-march=x86-64-v3"]),
            // Compilers take half of the registers' width unless told.
            ("avx512", &["-march=x86-64-v4", "-mprefer-vector-width=512"]),
        ],
        _ => &[("baseline", &[])],
    }
}

/// The object of all loops for one instruction set.
fn compile_loops(level: &str, flags: &[&str]) -> Vec<PathBuf> {
    let mut build = cxx();
    for flag in flags {
        build.flag(flag);
    }
    build.define("LNFREE_LEVEL", level).out_dir(out_dir().join(level)).file("native/loops/level.cpp");
    build.compile_intermediates()
}

/// The compiler with the flags of all our code.
fn cxx() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        // clang 18 and later write the types of template arguments into symbols; libtorch was compiled before
        // that.
        .flag_if_supported("-fclang-abi-compat=17")
        .opt_level(3)
        .warnings(true)
        // libtorch was compiled with it, and some of its structs are laid out by it.
        .define("NDEBUG", None)
        .debug(false)
        .flag_if_supported("-ffp-contract=fast")
        .flag_if_supported("-fno-math-errno")
        .flag_if_supported("-fno-trapping-math")
        // A false alarm about libtorch's headers.
        .flag_if_supported("-Wno-maybe-uninitialized")
        // Vectors are handed over between our own functions alone.
        .flag_if_supported("-Wno-psabi");
    build
}
