//! A disk that fills up while checkpoints are written. Needs a small file system of its own, so only root can
//! run it.

use std::path::Path;
use std::process::Command;

use super::{Place, strs};

/// A tmpfs of some size, unmounted when dropped; `None` where mounting is not allowed.
pub struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    pub fn mount(at: &'a Path, kilobytes: usize) -> Option<SmallDisk<'a>> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={kilobytes}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        mount.is_ok_and(|o| o.status.success()).then_some(SmallDisk(at))
    }
}

impl SmallDisk<'_> {
    pub fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let place = Place::new();
    let at = place.path("disk");
    // A checkpoint of the tiny model takes 2.1 MB: one fits, the next does not.
    let Some(_disk) = SmallDisk::mount(&at, 3500) else {
        println!("SKIPPED: no tmpfs can be mounted here");
        return;
    };
    let train = place.train("disk/run", &[]);
    place.fails(&strs(&train), &["disk/run/checkpoints/step-8", "no space left", "untouched"]);
    let mut names: Vec<String> = std::fs::read_dir(at.join("run/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["latest", "step-4"], "nothing half-written is left");
    let resume = ["train", "--device", "cpu", "--resume", "disk/run"];
    place.fails(&resume, &["step-8", "no space left"]);
    // With space again, it goes on from there to the same end.
    let larger = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&at).status().unwrap();
    assert!(larger.success());
    place.ok(&resume);
    place.ok(&strs(&place.train("calm", &[])));
    let model = |run: &str| place.read(&format!("{run}/checkpoints/latest/model.safetensors"));
    assert!(model("disk/run") == model("calm"));
}
