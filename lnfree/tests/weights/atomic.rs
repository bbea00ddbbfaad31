//! Whole files and folders, or the old ones.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use lnfree::atomic::{
    CHECKSUMS, remove_dir_atomic, remove_leftovers, sha256_file, verify_checksums, write_atomic,
    write_checksums, write_dir_atomic,
};
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::{Error, Result};

use crate::line;

fn put(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, |file| file.write_all(text.as_bytes()).map_err(Error::io(path)))
}

/// A folder with the files `a` and `sub/b` of this content.
fn put_folder(dir: &Path, text: &str) -> Result<()> {
    write_dir_atomic(dir, |folder| {
        fs::create_dir(folder.join("sub")).map_err(Error::io(folder))?;
        put(&folder.join("a"), text)?;
        put(&folder.join("sub/b"), text)?;
        write_checksums(folder)
    })
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_or_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    put(&path, "one").unwrap();
    put(&path, "two").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    let failed = write_atomic(&path, |file| {
        file.write_all(&[0; 100_000]).unwrap();
        Err(Error::invalid("something went wrong"))
    });
    assert_eq!(line(failed), "something went wrong");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    assert_eq!(names(folder.path()), ["x"]);
    // Readable for others as any file that is simply created, and not only for the owner as temporary files
    // are.
    fs::write(folder.path().join("y"), "").unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("x"), mode("y"));
}

#[test]
fn a_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("x"), folder.path().join("link"));
    put(&path, "one").unwrap();
    std::os::unix::fs::symlink("x", &link).unwrap();
    put(&link, "two").unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert!(line(put(&path.join("no/x"), "")).contains("no/x: there is no folder"));
    assert!(line(put(path, "")).contains("is a folder"));
    assert!(line(put(Path::new("/"), "")).starts_with("/: "));
    assert!(line(put(Path::new(""), "")).contains("not a name"));
    if cfg!(target_os = "linux") {
        assert!(line(put(Path::new("/proc/x"), "")).starts_with("/proc/x: cannot be written: "));
    }
    put(&path.join("x"), "").unwrap();
    assert!(line(put_folder(&path.join("x"), "")).contains("x: is a file where a folder"));
    assert!(line(put_folder(&path.join("x/y"), "")).contains("there is no folder"));
}

#[test]
fn a_folder_is_replaced_or_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("d");
    put_folder(&dir, "one").unwrap();
    verify_checksums(&dir).unwrap();
    fs::write(dir.join("stale"), "").unwrap();
    put_folder(&dir, "two").unwrap();
    assert_eq!(names(&dir), [CHECKSUMS, "a", "sub"], "nothing of the old folder is left");
    assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "two");
    let failed = write_dir_atomic(&dir, |new| {
        fs::write(new.join("half"), "x").unwrap();
        Err(Error::invalid("something went wrong"))
    });
    assert_eq!(line(failed), "something went wrong");
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "two");
    assert_eq!(names(folder.path()), ["d"]);
    fs::create_dir(folder.path().join("plain")).unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("d"), mode("plain"));
}

#[test]
fn readers_see_the_old_folder_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("d");
    put_folder(&dir, "0").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // An open folder stays what it was; only its name moves on.
                assert!(dir.is_dir(), "there is a moment without a folder");
                reads += 1;
            }
            reads
        });
        for i in 1..=20 {
            put_folder(&dir, &i.to_string()).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "20");
}

#[test]
fn what_a_killed_process_left_is_removed_and_the_rest_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join(".lnfree-step-30-abc.tmp/sub")).unwrap();
    fs::write(path.join(".lnfree-model-xyz.tmp"), "half").unwrap();
    for other in ["model.safetensors", "x.tmp", ".lnfree-x"] {
        fs::write(path.join(other), "").unwrap();
    }
    // A living writer holds a lock on what it is writing.
    write_atomic(&path.join("living"), |_| {
        let removed = remove_leftovers(path)?;
        assert_eq!(removed, [".lnfree-model-xyz.tmp", ".lnfree-step-30-abc.tmp"]);
        Ok(())
    })
    .unwrap();
    write_dir_atomic(&path.join("living-dir"), |_| {
        assert!(remove_leftovers(path)?.is_empty());
        Ok(())
    })
    .unwrap();
    assert_eq!(names(path), [".lnfree-x", "living", "living-dir", "model.safetensors", "x.tmp"]);
    assert!(line(remove_leftovers(&path.join("gone"))).contains("gone: No such file"));
}

#[test]
fn checksums_are_those_of_sha256sum_and_find_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("d");
    put_folder(&dir, "abc").unwrap();
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256_file(&dir.join("a")).unwrap(), abc);
    assert_eq!(fs::read_to_string(dir.join(CHECKSUMS)).unwrap(), format!("{abc}  a\n{abc}  sub/b\n"));
    if let Ok(status) =
        Command::new("sha256sum").args(["--strict", "--quiet", "-c", CHECKSUMS]).current_dir(&dir).status()
    {
        assert!(status.success());
    }
    assert!(verify_checksums(&dir).unwrap().is_empty());
    fs::write(dir.join("note"), "").unwrap();
    assert_eq!(verify_checksums(&dir).unwrap(), ["note"]);
    for (content, size) in [("abd", 3), ("abc\n", 4), ("ab", 2), ("", 0)] {
        fs::write(dir.join("sub/b"), content).unwrap();
        let message = line(verify_checksums(&dir));
        assert!(message.contains("sub/b: is not the file that was written"), "{message}");
        assert!(message.contains(&format!("its {size} bytes")), "{message}");
    }
    fs::remove_file(dir.join("sub/b")).unwrap();
    assert!(line(verify_checksums(&dir)).contains("sub/b: is missing"));
    let long = format!("{abc}  a\n{abc}  a\n");
    let outside = format!("{abc}  ../a\n");
    for list in [
        "",
        "x\n",
        "ABC  a\n",
        &abc.to_uppercase(),
        &long,
        &outside,
        &format!("{abc} a\n"),
        &format!("{abc}  /a\n"),
    ] {
        fs::write(dir.join(CHECKSUMS), list).unwrap();
        let message = line(verify_checksums(&dir));
        assert!(message.contains(CHECKSUMS), "{list}: {message}");
    }
    fs::write(dir.join(CHECKSUMS), [0xff, 0xfe]).unwrap();
    assert!(line(verify_checksums(&dir)).contains("not text"));
    fs::remove_file(dir.join(CHECKSUMS)).unwrap();
    assert!(line(verify_checksums(&dir)).contains("was not written completely"));
    fs::write(dir.join("a\nb"), "").unwrap();
    assert!(
        line(write_checksums(&dir).map_err(|e| Error::invalid(format!("{e}").replace("a\nb", ""))))
            .contains("cannot hold")
    );
}

/// A file system of 1 MiB that is gone with the value; [`None`] where this user may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_one_line_and_leaves_the_old_content() {
    let Some(disk) = SmallDisk::mount() else {
        println!(
            "SKIPPED: a_full_disk_is_one_line_and_leaves_the_old_content needs the right to mount a tmpfs"
        );
        return;
    };
    let disk = disk.0.path();
    let weights = |n: i64| Weights::from([("a".to_string(), Tensor::ones([n], (Kind::Float, Device::Cpu)))]);
    let (file, dir) = (disk.join("model.safetensors"), disk.join("d"));
    write_safetensors(&file, &weights(10), &Default::default()).unwrap();
    put_folder(&dir, "old").unwrap();
    let before = names(disk);
    let full = line(write_safetensors(&file, &weights(1 << 20), &Default::default()));
    assert!(full.contains("model.safetensors: no space left on the disk"), "{full}");
    let buffered = line(put(&file, &"x".repeat(2 << 20)));
    assert!(buffered.contains("model.safetensors: no space left on the disk"), "{buffered}");
    let full = line(write_dir_atomic(&dir, |new| {
        write_safetensors(&new.join("model.safetensors"), &weights(1 << 20), &Default::default())
    }));
    assert!(full.contains("no space left on the disk"), "{full}");
    assert_eq!(names(disk), before);
    assert_eq!(read_weights(&file).unwrap()["a"], Tensor::ones([10], (Kind::Float, Device::Cpu)));
    verify_checksums(&dir).unwrap();
}

#[test]
fn a_folder_is_deleted_or_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("x");
    put_folder(&dir, "one").unwrap();
    remove_dir_atomic(&dir).unwrap();
    assert!(names(folder.path()).is_empty());
    let gone = line(remove_dir_atomic(&dir));
    assert!(gone.starts_with(&dir.display().to_string()) && gone.contains("cannot be deleted"), "{gone}");
    // A link goes, and not what it leads to, which may be on another disk.
    let elsewhere = tempfile::tempdir().unwrap();
    put_folder(&elsewhere.path().join("y"), "two").unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("y"), &dir).unwrap();
    remove_dir_atomic(&dir).unwrap();
    assert!(names(folder.path()).is_empty());
    assert_eq!(names(&elsewhere.path().join("y")), [CHECKSUMS, "a", "sub"]);
}
