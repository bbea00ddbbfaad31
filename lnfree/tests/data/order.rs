//! The order of training data, and batches in it.

use lnfree::data::{Batches, DataOrder, Layout, TokenFile, write_tokens};
use tch::{Kind, Tensor};

use super::message;

fn epoch(order: &mut DataOrder, epoch: u64, n: usize) -> Vec<usize> {
    (0..n as u64).map(|i| order.index(epoch * n as u64 + i)).collect()
}

#[test]
fn every_epoch_is_a_fresh_permutation() {
    let n = 1000;
    let mut order = DataOrder::new(1, n, true).unwrap();
    let epochs: Vec<Vec<usize>> = (0..5).map(|e| epoch(&mut order, e, n)).collect();
    for (i, found) in epochs.iter().enumerate() {
        let mut sorted = found.clone();
        sorted.sort();
        assert!(sorted.iter().copied().eq(0..n));
        assert!(epochs[..i].iter().all(|other| other != found));
    }
    assert_ne!(epoch(&mut DataOrder::new(2, n, true).unwrap(), 0, n), epochs[0]);
    // In any order of asking, and from a fresh start.
    let mut fresh = DataOrder::new(1, n, true).unwrap();
    for (e, i) in [(4, 3), (0, 999), (3, 0), (4, 3)] {
        assert_eq!(fresh.index(e as u64 * n as u64 + i as u64), epochs[e][i]);
    }
    assert_eq!(epoch(&mut DataOrder::new(1, n, false).unwrap(), 3, n), (0..n).collect::<Vec<_>>());
}

/// Pinned: checkpoints of this version go on only if the order never changes.
#[test]
fn the_order_is_pinned() {
    let mut order = DataOrder::new(1337, 10, true).unwrap();
    assert_eq!(epoch(&mut order, 0, 10), PINNED[0]);
    assert_eq!(epoch(&mut order, 1, 10), PINNED[1]);
}

const PINNED: [[usize; 10]; 2] = [[1, 8, 2, 3, 7, 4, 5, 6, 0, 9], [5, 8, 0, 4, 2, 6, 1, 3, 9, 7]];

/// All 24 permutations of 4 come up about equally often: chi-squared below its 99.99% point for 23 degrees of
/// freedom.
#[test]
fn permutations_are_uniform() {
    let mut counts = std::collections::HashMap::new();
    let mut order = DataOrder::new(5, 4, true).unwrap();
    for e in 0..24_000 {
        *counts.entry(epoch(&mut order, e, 4)).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24);
    let chi_squared: f64 = counts.values().map(|n| (f64::from(*n) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi_squared < 56.0, "{chi_squared}");
}

#[test]
fn impossible_orders_are_refused() {
    assert!(message(DataOrder::new(0, 0, true)).contains("cannot order 0"));
    assert!(message(DataOrder::new(0, (1 << 32) + 1, true)).contains("2^32"));
    let mut one = DataOrder::new(0, 1, true).unwrap();
    assert_eq!((one.index(0), one.index(u64::MAX)), (0, 0));
}

fn numbered(dir: &tempfile::TempDir, n: u32) -> TokenFile {
    let path = dir.path().join("numbered.arrow");
    write_tokens(&path, (0..n).map(|i| Ok(vec![i, 2 * i, 7])), Layout::Fixed(3), 1000).unwrap();
    TokenFile::open(path).unwrap()
}

#[test]
fn batches_follow_the_order_and_resume_at_any_position() {
    let dir = tempfile::tempdir().unwrap();
    let mut batches = Batches::new(numbered(&dir, 10), 3, true).unwrap();
    let mut order = DataOrder::new(3, 10, true).unwrap();
    let mut all = Vec::new();
    for step in 0..9 {
        assert_eq!(batches.position(), step * 4);
        let batch = batches.next_batch(4).unwrap();
        assert_eq!((batch.size(), batch.kind()), (vec![4, 3], Kind::Int64));
        let expected: Vec<i64> = (step * 4..step * 4 + 4)
            .flat_map(|position| {
                let i = order.index(position) as i64;
                [i, 2 * i, 7]
            })
            .collect();
        assert_eq!(batch, Tensor::from_slice(&expected).view([4, 3]));
        all.push(batch);
    }
    let mut resumed = Batches::new(numbered(&dir, 10), 3, true).unwrap();
    resumed.seek(20);
    assert_eq!(resumed.next_batch(4).unwrap(), all[5]);
    assert_eq!((resumed.position(), resumed.block_size()), (24, 3));
}

#[test]
fn unequal_rows_are_refused_with_both_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unequal.arrow");
    let rows = [vec![1, 2, 3], vec![4, 5, 6], vec![7]];
    write_tokens(&path, rows.into_iter().map(Ok), Layout::Variable, 10).unwrap();
    let refused = message(Batches::new(TokenFile::open(&path).unwrap(), 0, true));
    assert!(refused.contains("unequal.arrow"), "{refused}");
    assert!(refused.contains("sequence 0 has 3 tokens and sequence 2 has 1"), "{refused}");
}

#[test]
fn a_bad_id_leaves_the_position_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("negative.arrow");
    super::write_arrow(&path, &[super::table(vec![("input_ids", super::lists(&[vec![1, 2], vec![3, -4]]))])]);
    let mut batches = Batches::new(TokenFile::open(&path).unwrap(), 0, false).unwrap();
    let refused = message(batches.next_batch(2));
    assert!(refused.contains("row 1, position 1: id -4"), "{refused}");
    assert_eq!(batches.position(), 0);
    assert_eq!(batches.next_batch(1).unwrap(), Tensor::from_slice(&[1i64, 2]).view([1, 2]));
}
