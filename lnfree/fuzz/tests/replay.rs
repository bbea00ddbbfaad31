//! The short run: every seed, and some thousand mutations of them that are always the same ones. One test, so
//! that nothing else takes memory meanwhile.

use std::path::Path;

use lnfree_fuzz::{Mutator, Scratch, TARGETS, Target};

/// Mutations of a target's seeds.
const MUTATIONS: usize = 2000;
/// The longest of them.
const LONGEST: usize = 8192;

/// Names and contents of the seeds, in the order of their names.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(target.seeds()).unwrap_or_else(|e| panic!("{}: {e}", target.name));
    let read = |path: &Path| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
    };
    let mut seeds: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    seeds.sort();
    seeds
}

/// Seeds are accepted, apart from those that are called `refused-…`, and those that failed once and are
/// called `found-…`.
fn replay(target: &Target, scratch: &Scratch, faults: &mut Vec<String>) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    for (name, seed) in &seeds {
        match target.check(scratch, seed) {
            Err(fault) => faults.push(format!("{}/{name}: {fault}", target.name)),
            Ok(_) if name.starts_with("found-") => {}
            Ok(accepted) if accepted != name.starts_with("refused-") => {}
            Ok(accepted) => {
                let why = (target.read)(scratch, seed).err().map(|error| error.to_string());
                faults.push(format!("{}/{name}: accepted: {accepted} ({why:?})", target.name));
            }
        }
    }
    let contents: Vec<Vec<u8>> = seeds.into_iter().map(|(_, seed)| seed).collect();
    let mut mutator = Mutator::new(target.name, &contents, target.words, LONGEST);
    let mut accepted = 0;
    for number in 0..MUTATIONS {
        let input = mutator.next_input();
        match target.check(scratch, &input) {
            Ok(yes) => accepted += usize::from(yes),
            Err(fault) => {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", target.name));
                std::fs::write(&kept, &input).unwrap();
                faults.push(format!(
                    "{}: mutation {number}, kept in {}: {fault}",
                    target.name,
                    kept.display()
                ));
                return;
            }
        }
    }
    println!("{:20} {accepted} of {MUTATIONS} mutations are accepted", target.name);
}

#[test]
fn no_reader_fails_on_seeds_or_mutations_of_them() {
    let scratch = Scratch::new().unwrap();
    let mut faults = Vec::new();
    TARGETS.iter().copied().flatten().for_each(|target| replay(target, &scratch, &mut faults));
    // Panics are silent here: readers' own are caught and counted.
    faults.iter().for_each(|fault| println!("{fault}"));
    assert!(faults.is_empty(), "{} faults", faults.len());
}
