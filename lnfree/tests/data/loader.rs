//! Batches read ahead: the same ones in the same places as without.

use std::sync::{Arc, Weak};

use lnfree::data::{Batches, Layout, Loader, TokenFile, write_tokens};
use tch::{Device, Tensor};

use super::message;

fn numbered(dir: &tempfile::TempDir, n: u32) -> Arc<TokenFile> {
    let path = dir.path().join("numbered.arrow");
    write_tokens(&path, (0..n).map(|i| Ok(vec![i, 2 * i, 7])), Layout::Fixed(3), 1000).unwrap();
    Arc::new(TokenFile::open(path).unwrap())
}

#[test]
fn a_loader_gives_what_batches_give() {
    let dir = tempfile::tempdir().unwrap();
    let file = numbered(&dir, 10);
    let mut plain = Batches::new(file.clone(), 3, true).unwrap();
    let mut loader = Loader::new(file, 3, true, Device::Cpu).unwrap();
    assert_eq!(loader.block_size(), 3);
    // Over several epochs; the size of the batches changes where something is read ahead already.
    for batch_size in [4, 4, 4, 2, 2, 2, 2, 2, 7, 1, 4, 4, 13, 4] {
        assert_eq!(loader.next_batch(batch_size).unwrap(), plain.next_batch(batch_size).unwrap());
        assert_eq!(loader.position(), plain.position());
    }
    // Back and forth, as a resumed run does.
    for position in [20, 3, 1000] {
        loader.seek(position);
        plain.seek(position);
        assert_eq!(loader.position(), position);
        for _ in 0..3 {
            assert_eq!(loader.next_batch(4).unwrap(), plain.next_batch(4).unwrap());
        }
    }
    assert_eq!(loader.position(), 1012);
}

#[test]
fn an_error_arrives_with_the_batch_that_it_is_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("negative.arrow");
    let rows = [vec![1, 2], vec![3, 4], vec![5, 6], vec![7, -8], vec![9, 10]];
    super::write_arrow(&path, &[super::table(vec![("input_ids", super::lists(&rows))])]);
    let mut loader = Loader::new(TokenFile::open(&path).unwrap(), 0, false, Device::Cpu).unwrap();
    let batch = |ids: &[i64]| Tensor::from_slice(ids).view([-1, 2]);
    assert_eq!(loader.next_batch(2).unwrap(), batch(&[1, 2, 3, 4]));
    for _ in 0..2 {
        let refused = message(loader.next_batch(2));
        assert!(refused.contains("row 3, position 1: id -8"), "{refused}");
        assert_eq!(loader.position(), 2);
    }
    assert_eq!(loader.next_batch(1).unwrap(), batch(&[5, 6]));
    loader.seek(4);
    assert_eq!(loader.next_batch(1).unwrap(), batch(&[9, 10]));
}

/// The thread holds the file: where nobody holds it, there is no thread.
#[test]
fn no_thread_stays_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = numbered(&dir, 10);
    let held: Weak<TokenFile> = Arc::downgrade(&file);
    let mut loader = Loader::new(file, 3, true, Device::Cpu).unwrap();
    assert_eq!(held.strong_count(), 1, "nothing is read before it is asked for");
    let _ = loader.next_batch(2).unwrap();
    assert_eq!(held.strong_count(), 2);
    let _ = loader.next_batch(3).unwrap();
    assert_eq!(held.strong_count(), 2, "another batch size leaves no second thread");
    drop(loader);
    assert_eq!(held.strong_count(), 0);
}
