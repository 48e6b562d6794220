//! Where faults and kills fall: another place in each run, and a failure names the seed.

pub struct Dice {
    pub seed: u64,
    state: u64,
}

impl Dice {
    pub fn new() -> Dice {
        let seed = tenantry::clock::now_ms() as u64 | 1;
        Dice { seed, state: seed }
    }

    /// Xorshift, good enough to be unsystematic.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % bound
    }
}
