//! OpenWebText: the peer's validation split, and training documents that are not in it.

use super::shuffles::{TrainTest, train_test_split};

/// Documents in Skylion007/openwebtext.
pub const OWT_DOCUMENTS: usize = 8_013_769;
/// Share of the documents that is the validation split.
const TEST_SIZE: f64 = 0.0005;
const SEED: u64 = 2357;

/// The peer's split of OpenWebText, of as many documents as it has: `test` is the validation split, in its order.
pub fn owt_split(n_documents: u32) -> TrainTest {
    train_test_split(n_documents, TEST_SIZE, SEED)
}
