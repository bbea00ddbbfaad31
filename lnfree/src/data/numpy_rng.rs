//! numpy's default random generator: the shuffles of `datasets` are its permutations.
//!
//! `numpy.random.default_rng(seed)` is PCG64, the XSL-RR output of a 128-bit linear congruential generator
//! (<https://www.pcg-random.org/paper.html>), seeded through `SeedSequence`, numpy's entropy mixer. Bounded
//! integers are drawn by Lemire's method (<https://arxiv.org/abs/1805.10941>), places of shuffles by
//! rejection under a mask.

/// Words in `SeedSequence`'s pool.
const POOL: usize = 4;
/// The multiplier of the 128-bit generator.
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// `numpy.random.default_rng(seed)`, as far as permutations and bounded integers go: the same numbers.
#[derive(Debug, Clone)]
pub struct NumpyRng {
    state: u128,
    increment: u128,
    /// The high half of the last 64 bits, when only the low half was used.
    half: Option<u32>,
}

impl NumpyRng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_words(seed);
        let (start, sequence) = (u128::from(a) << 64 | u128::from(b), u128::from(c) << 64 | u128::from(d));
        let mut random = Self { state: 0, increment: sequence << 1 | 1, half: None };
        random.step();
        random.state = random.state.wrapping_add(start);
        random.step();
        random
    }

    /// An integer in `0..n`: `integers(0, n)`. Zero for an `n` of 0 or 1, which takes nothing from the
    /// generator.
    pub fn below(&mut self, n: u64) -> u64 {
        match n {
            0 | 1 => 0,
            n if n < 1 << 32 => u64::from(self.below_32(n as u32)),
            // numpy's way where the range is that of a word: no multiplication.
            n if n == 1 << 32 => u64::from(self.next_u32()),
            n => self.below_64(n),
        }
    }

    /// `shuffle` of a list or of a one-dimensional array: Fisher and Yates from the end.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.up_to(last as u64) as usize);
        }
    }

    /// `permutation(n)`.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }

    /// An integer in `0..=max`: bits under the smallest mask that covers `max`, drawn again while they are
    /// above it.
    fn up_to(&mut self, max: u64) -> u64 {
        let mask = u64::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let bits = if max <= u64::from(u32::MAX) { u64::from(self.next_u32()) } else { self.next_u64() };
            if bits & mask <= max {
                return bits & mask;
            }
        }
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Each 64 bits serve twice, the low half first.
    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let bits = self.next_u64();
        self.half = Some((bits >> 32) as u32);
        bits as u32
    }

    fn below_32(&mut self, n: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    fn below_64(&mut self, n: u64) -> u64 {
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }
}

/// `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_words(seed: u64) -> [u64; POOL] {
    let mut constant = 0x43b0_d7e5;
    let mut hashed = |word: u32| scrambled(word, &mut constant, 0x931e_8875);
    let mut pool = [hashed(seed as u32), hashed((seed >> 32) as u32), hashed(0), hashed(0)];
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mixed(pool[to], hashed(pool[from]));
        }
    }
    let mut constant = 0x8b51_f9dd;
    let mut word = |i: usize| u64::from(scrambled(pool[i % POOL], &mut constant, 0x58f3_8ded));
    std::array::from_fn(|i| word(2 * i) | word(2 * i + 1) << 32)
}

fn scrambled(word: u32, constant: &mut u32, multiplier: u32) -> u32 {
    let word = word ^ *constant;
    *constant = constant.wrapping_mul(multiplier);
    let word = word.wrapping_mul(*constant);
    word ^ word >> 16
}

fn mixed(a: u32, b: u32) -> u32 {
    let word = a.wrapping_mul(0xca01_f9dd).wrapping_sub(b.wrapping_mul(0x4973_f715));
    word ^ word >> 16
}
