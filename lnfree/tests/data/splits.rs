//! Splits and shuffles, equal to those of numpy and `datasets` (`vectors/split.json`).

use lnfree::data::numpy_rng::NumpyRng;
use lnfree::data::{ChunkScheme, OWT_DOCUMENTS, owt_split};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::vector;

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

/// SHA-256 over little-endian int64, the type that numpy gives a permutation.
fn digest(order: &[u32]) -> String {
    let bytes: Vec<u8> = order.iter().flat_map(|i| i64::from(*i).to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn permutations_are_those_of_numpy() {
    let vectors = vector("split.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (n, seed) = (case["n"].as_u64().unwrap(), case["seed"].as_u64().unwrap());
        let order = NumpyRng::new(seed).permutation(n as u32);
        let (first, last) = (numbers(&case["first"]), numbers(&case["last"]));
        assert_eq!(order[..first.len()], first, "first of {n}, seed {seed}");
        assert_eq!(order[order.len() - last.len()..], last, "last of {n}, seed {seed}");
        assert_eq!(case["sha256_le_i64"], digest(&order), "{n}, seed {seed}");
    }
}

#[test]
fn the_validation_split_of_openwebtext_is_the_published_one() {
    let owt = &vector("split.json")["openwebtext"];
    assert_eq!(owt["n_documents"].as_u64(), Some(OWT_DOCUMENTS as u64));
    let split = owt_split(OWT_DOCUMENTS as u32);
    assert!(split.test == numbers(&owt["test_indices"]));
    assert_eq!(split.test.len(), 4007);
    let first = numbers(&owt["train_first"]);
    assert_eq!(split.train[..first.len()], first);
    assert_eq!(split.train.len() + split.test.len(), OWT_DOCUMENTS);

    let shards: Vec<Vec<u32>> =
        owt["test_shards_num_proc_32"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!(ChunkScheme::PEER.shards, shards.len());
    for (index, shard) in shards.iter().enumerate() {
        let range = ChunkScheme::PEER.shard(index, split.test.len());
        assert_eq!((range.start, range.end), (shard[0] as usize, shard[1] as usize), "shard {index}");
    }
}
