//! Where faults and kills fall: another place in each run, and a failure names the seed.

pub struct Dice {
    pub seed: u64,
    state: u64,
}

impl Dice {
    pub fn new() -> Dice {
        Dice::of(tenantry::clock::now_ms() as u64)
    }

    /// Those that fell so before.
    pub fn of(seed: u64) -> Dice {
        let seed = seed | 1;
        Dice { seed, state: seed }
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// Xorshift, good enough to be unsystematic.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }
}
