//! Splits and shuffles in the order in which `datasets` 3.2 makes them.

use super::numpy_rng::NumpyRng;

/// Items that a streaming shuffle holds back.
pub const STREAM_BUFFER: usize = 1000;
/// Random places that a streaming shuffle draws at a time, needed or not.
const DRAWS: usize = 1000;

/// Rows of the two parts of `Dataset.train_test_split`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainTest {
    /// Rows of the training part, in its order.
    pub train: Vec<u32>,
    /// Rows of the test part, in its order.
    pub test: Vec<u32>,
}

/// `Dataset.train_test_split(test_size, seed, shuffle=True)` of `n` rows, `test_size` being a share: the test
/// part is the first `ceil(n × test_size)` of a permutation, the training part the rest.
pub fn train_test_split(n: u32, test_size: f64, seed: u64) -> TrainTest {
    let mut test = NumpyRng::new(seed).permutation(n);
    let n_test = (f64::from(n) * test_size).ceil() as usize;
    let train = test.split_off(n_test.min(test.len()));
    TrainTest { train, test }
}

/// `IterableDataset.shuffle(seed, buffer_size)`: gives one of the last `buffer_size` items at random for each
/// that comes in, and what is left in random order.
pub fn shuffle_stream<T>(
    mut items: impl Iterator<Item = T>,
    seed: u64,
    buffer_size: usize,
) -> impl Iterator<Item = T> {
    let mut random = NumpyRng::new(seed);
    let mut buffer: Vec<T> = Vec::new();
    let mut places = Vec::new().into_iter();
    let mut rest = None;
    std::iter::from_fn(move || {
        while rest.is_none() {
            let Some(item) = items.next() else {
                random.shuffle(&mut buffer);
                rest = Some(std::mem::take(&mut buffer).into_iter());
                break;
            };
            if buffer.len() < buffer_size {
                buffer.push(item);
                continue;
            }
            let place: usize = places.next().unwrap_or_else(|| {
                let drawn: Vec<usize> =
                    (0..DRAWS).map(|_| random.below(buffer_size as u64) as usize).collect();
                places = drawn.into_iter();
                places.next().unwrap_or(0)
            });
            return Some(std::mem::replace(&mut buffer[place], item));
        }
        rest.as_mut()?.next()
    })
}
