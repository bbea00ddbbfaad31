//! What a machine is found to be: CUDA that is there in part, old or broken, threads, and the versions the
//! scripts name.
//!
//! CUDA drivers of every kind are played by a small library of the real one's name, asked by a process of its
//! own.
#![cfg(target_os = "linux")]

use lnfree::device;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A driver that answers what the environment tells it to.
const DRIVER: &str = r#"
#include <stdlib.h>
#include <string.h>
static int told(const char *name, int otherwise) { const char *v = getenv(name); return v ? atoi(v) : otherwise; }
int cuDriverGetVersion(int *v) { *v = told("FAKE_VERSION", 13000); return 0; }
int cuInit(unsigned flags) { return told("FAKE_INIT", 0); }
int cuDeviceGetCount(int *n) { *n = told("FAKE_COUNT", 1); return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int n, int d) { strncpy(name, "Toy GPU", n); return 0; }
int cuDeviceTotalMem_v2(size_t *b, int d) { *b = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : 0; return 0; }
int cuGetErrorString(int e, const char **text) { *text = "toy words"; return 0; }
"#;

/// Not a test: what the child process of the tests below does.
#[test]
#[ignore = "run by the other tests, in an environment of their own"]
fn child() {
    match device::parse_device("cuda") {
        Ok(device) => println!("answer: {device:?}"),
        Err(error) => println!("answer: {error}"),
    }
    println!("auto: {:?}", device::parse_device("auto"));
    println!("driver: {:?}", device::driver());
    for check in lnfree::doctor::report() {
        println!("{check}");
    }
}

/// A folder with this source compiled as `lib/NAME`.
fn library(name: &str, source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lib")).unwrap();
    let file = folder.path().join("source.c");
    fs::write(&file, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", &format!("-Wl,-soname,{name}"), "-o"])
        .arg(folder.path().join("lib").join(name))
        .arg(&file)
        .status()
        .unwrap();
    assert!(compiled.success());
    folder
}

/// What [`child`] prints with the libraries of `driver` before all others and these variables.
fn ask(driver: &Path, variables: &[(&str, &str)]) -> String {
    let mut path = vec![driver.join("lib")];
    path.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env("LD_LIBRARY_PATH", std::env::join_paths(path).unwrap())
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("LIBTORCH")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn answer(text: &str) -> &str {
    text.lines().find_map(|l| l.split_once("answer: ")).expect("the child answers").1
}

/// Whether the libtorch that these tests run on has a CUDA part, so that it cannot be asked what happens
/// without.
fn libtorch_has_cuda() -> bool {
    device::libtorch_folder().is_some_and(|folder| folder.join("libtorch_cuda.so").exists())
}

#[test]
fn a_driver_that_is_too_old_broken_or_blind_is_named_as_the_reason() {
    let toy = library("libcuda.so.1", DRIVER);
    let cases: [(&[(&str, &str)], &str); 4] = [
        (
            &[("FAKE_VERSION", "12040")],
            "the NVIDIA driver serves CUDA 12.4 and this libtorch needs 13.0: install a newer driver",
        ),
        (
            &[("FAKE_INIT", "999")],
            "the NVIDIA driver does not work (error 999, toy words): nvidia-smi tells more",
        ),
        (&[("FAKE_INIT", "100")], "the NVIDIA driver sees no GPU: nvidia-smi tells more"),
        (
            &[("FAKE_COUNT", "0"), ("CUDA_VISIBLE_DEVICES", "7")],
            "CUDA_VISIBLE_DEVICES=7 leaves no GPU: unset it, or name one that is there",
        ),
    ];
    for (variables, why) in cases {
        let text = ask(toy.path(), variables);
        assert_eq!(answer(&text), format!("device cuda: {why}"));
        assert!(text.contains("auto: Ok(Cpu)"), "{text}");
    }
    let hollow = library("libcuda.so.1", "");
    let text = ask(hollow.path(), &[]);
    assert!(answer(&text).contains("undefined symbol: cuDriverGetVersion"), "{text}");
}

#[test]
fn a_gpu_without_cudas_part_of_libtorch_is_told_how_to_get_it() {
    if libtorch_has_cuda() {
        return;
    }
    let toy = library("libcuda.so.1", DRIVER);
    let text = ask(toy.path(), &[("FAKE_COUNT", "2")]);
    let folder = device::libtorch_folder().unwrap();
    let what = format!("the libtorch in {} is the CPU kind", folder.display());
    assert_eq!(answer(&text), format!("device cuda: {what}: ./scripts/setup.sh --cuda gets the other"));
    let gpu = r#"Gpu { name: "Toy GPU", memory: 85899345920, capability: (9, 0), virtual_memory: false }"#;
    assert!(
        text.contains(&format!("driver: Ok(Driver {{ cuda: (13, 0), gpus: [{gpu}, {gpu}] }})")),
        "{text}"
    );
    // The doctor says the same, and that the rest works.
    assert!(text.contains(&format!("warn  CUDA       not used: {what}\n")), "{text}");
    assert!(text.contains("-> ./scripts/setup.sh --cuda gets the other\n"), "{text}");
    assert!(text.contains("ok    libtorch   2.11.0 in "), "{text}");
}

#[test]
fn cudas_part_is_taken_from_libtorch_variable_if_it_is_whole_and_of_our_version() {
    if libtorch_has_cuda() {
        return;
    }
    let toy = library("libcuda.so.1", DRIVER);
    let part = library("libtorch_cuda.so", "int toy_part = 1;");
    let root = part.path().display().to_string();
    let ask = || ask(toy.path(), &[("LIBTORCH", &root)]);

    fs::write(part.path().join("build-version"), "2.6.0\n").unwrap();
    assert!(answer(&ask()).contains("is the CPU kind"), "parts of two versions do not go together");
    // This one loads, and offers nothing: libtorch is asked, and finds no CUDA.
    fs::write(part.path().join("build-version"), "2.11.0+cu130\n").unwrap();
    let text = ask();
    assert!(answer(&text).contains("the driver sees 1 GPU(s) and libtorch none"), "{text}");
    let file = part.path().join("lib/libtorch_cuda.so");
    fs::write(&file, "torn").unwrap();
    let text = ask();
    let begin = format!("device cuda: {} cannot be loaded (", file.display());
    assert!(answer(&text).starts_with(&begin) && text.contains("file too short"), "{text}");
}

#[test]
fn threads_are_set_within_bounds() {
    let before = device::threads();
    assert_eq!(device::set_threads(Some(1)).unwrap(), 1);
    assert_eq!(device::threads(), 1);
    for wish in [0, 4097, usize::MAX] {
        let message = device::set_threads(Some(wish)).unwrap_err().to_string();
        assert!(message.starts_with(&format!("threads {wish}:")), "{message}");
        assert_eq!(device::threads(), 1, "a refused wish changes nothing");
    }
    assert_eq!(device::set_threads(Some(before)).unwrap(), before);
    assert!(device::set_threads(None).unwrap() <= before);
}

#[test]
fn the_scripts_the_crate_and_tch_mean_the_same_libtorch() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let version = device::LIBTORCH_VERSION;
    assert!(read("scripts/lib.sh").contains(&format!("\nLIBTORCH_VERSION={version}\n")));
    // One for each system.
    assert_eq!(read("scripts/wheels.sh").matches(&format!("\ntorch=={version} --hash=sha256:")).count(), 3);
}
