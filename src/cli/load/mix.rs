//! A [`Mix`] says how often each [`Op`] is done, a [`Skew`] to which tenant, both by drawing from [`Dice`], which
//! give the same numbers for the same seed.

use std::str::FromStr;

/// One thing a tenant's client does. `Ack` follows a `Claim` for each of its jobs and is not drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Read,
    Page,
    Insert,
    Update,
    CacheGet,
    CacheSet,
    CacheMiss,
    CacheIncrement,
    Enqueue,
    Claim,
    Ack,
}

impl Op {
    pub const ALL: [Op; 11] = [
        Op::Read,
        Op::Page,
        Op::Insert,
        Op::Update,
        Op::CacheGet,
        Op::CacheSet,
        Op::CacheMiss,
        Op::CacheIncrement,
        Op::Enqueue,
        Op::Claim,
        Op::Ack,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Page => "page",
            Op::Insert => "insert",
            Op::Update => "update",
            Op::CacheGet => "cache-get",
            Op::CacheSet => "cache-set",
            Op::CacheMiss => "cache-miss",
            Op::CacheIncrement => "cache-increment",
            Op::Enqueue => "enqueue",
            Op::Claim => "claim",
            Op::Ack => "ack",
        }
    }
}

/// Weights of the operations; their sum is what each is a share of.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    text: String,
    /// Rising, one for each operation that can be drawn; the last is the sum.
    upto: Vec<(f64, Op)>,
}

impl Mix {
    pub fn draw(&self, dice: &mut Dice) -> Op {
        let sum = self.upto.last().map_or(0.0, |last| last.0);
        let at = dice.share() * sum;
        self.upto.iter().find(|(upto, _)| at < *upto).or(self.upto.last()).map_or(Op::Read, |found| found.1)
    }

    pub fn has(&self, op: Op) -> bool {
        self.upto.iter().any(|(_, drawn)| *drawn == op)
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `read=80,insert=10,cache=5,queue=5`. `cache` is four gets for each set, `queue` ten enqueues for each claim.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut weights = [0.0; Op::ALL.len()];
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or_else(|| format!("`{part}` is not NAME=WEIGHT"))?;
            let weight: f64 = weight
                .parse()
                .ok()
                .filter(|w: &f64| (0.0..=1e6).contains(w))
                .ok_or_else(|| format!("the weight of `{name}` is a number from 0 to 1000000, not `{weight}`"))?;
            let mut add = |op: Op, share: f64| weights[op as usize] += weight * share;
            match name {
                "cache" => (add(Op::CacheGet, 0.8), add(Op::CacheSet, 0.2)).0,
                "queue" => (add(Op::Enqueue, 10.0 / 11.0), add(Op::Claim, 1.0 / 11.0)).0,
                name => match Op::ALL.iter().find(|op| op.name() == name && **op != Op::Ack) {
                    Some(op) => add(*op, 1.0),
                    None => {
                        let names = Op::ALL.iter().filter(|op| **op != Op::Ack).map(|op| op.name());
                        return Err(format!("`{name}` is none of {}, cache, queue", names.collect::<Vec<_>>().join(", ")));
                    }
                },
            }
        }
        let mut sum = 0.0;
        let mut upto = Vec::new();
        for op in Op::ALL {
            if weights[op as usize] > 0.0 {
                sum += weights[op as usize];
                upto.push((sum, op));
            }
        }
        if upto.is_empty() { Err("every weight is 0".to_owned()) } else { Ok(Mix { text: text.to_owned(), upto }) }
    }
}

/// How the load is spread over the tenants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skew {
    Uniform,
    /// The tenant of rank k is drawn in proportion to 1 / k to this power.
    Zipf(f64),
    /// This share goes to the first tenant, the rest evenly to the others.
    Hot(f64),
}

impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Skew, String> {
        let (kind, value) = text.split_once(':').map_or((text, None), |(kind, value)| (kind, Some(value)));
        let number = |default: f64, most: f64| match value {
            None => Ok(default),
            Some(value) => value
                .parse()
                .ok()
                .filter(|given: &f64| *given > 0.0 && *given <= most)
                .ok_or_else(|| format!("`{value}` is not a number above 0 and up to {most}")),
        };
        match kind {
            "uniform" if value.is_none() => Ok(Skew::Uniform),
            "zipf" => number(1.0, 10.0).map(Skew::Zipf),
            "hot" => number(0.5, 1.0).map(Skew::Hot),
            _ => Err(format!("`{text}` is none of uniform, zipf:S, hot:SHARE")),
        }
    }
}

impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Skew::Uniform => f.write_str("uniform"),
            Skew::Zipf(s) => write!(f, "zipf:{s}"),
            Skew::Hot(share) => write!(f, "hot:{share}"),
        }
    }
}

/// A skew over a number of tenants, ready to draw from.
pub struct Spread {
    skew: Skew,
    tenants: usize,
    /// For Zipf: rising to 1, one for each tenant.
    upto: Vec<f64>,
}

impl Spread {
    pub fn new(skew: Skew, tenants: usize) -> Spread {
        let mut upto = Vec::new();
        if let Skew::Zipf(s) = skew {
            let mut sum = 0.0;
            upto.extend((1..=tenants).map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            }));
            upto.iter_mut().for_each(|at| *at /= sum);
        }
        Spread { skew, tenants, upto }
    }

    /// The index of a tenant.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        match self.skew {
            Skew::Uniform => dice.below(self.tenants),
            Skew::Zipf(_) => {
                let at = dice.share();
                self.upto.partition_point(|upto| *upto <= at).min(self.tenants - 1)
            }
            Skew::Hot(share) if self.tenants == 1 || dice.share() < share => 0,
            Skew::Hot(_) => 1 + dice.below(self.tenants - 1),
        }
    }

    /// Whether hot and quiet tenants are told apart.
    pub fn has_hot(&self) -> bool {
        matches!(self.skew, Skew::Hot(share) if share < 1.0) && self.tenants > 1
    }
}

/// SplitMix64: two multiplications a number, good enough to spread load.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `n`; 0 for none.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn<T>(mut draw: impl FnMut(&mut Dice) -> T, counts: impl Fn(T) -> bool) -> usize {
        let mut dice = Dice::new(7);
        (0..10_000).filter(|_| counts(draw(&mut dice))).count()
    }

    #[test]
    fn operations_come_in_proportion_to_their_weights() {
        let mix: Mix = "read=80,insert=10,cache=10".parse().unwrap();
        let times = |op| drawn(|dice| mix.draw(dice), |drawn| drawn == op);
        assert!((7_800..8_200).contains(&times(Op::Read)) && (850..1_150).contains(&times(Op::Insert)));
        assert!((700..900).contains(&times(Op::CacheGet)) && (130..270).contains(&times(Op::CacheSet)));
        assert!(times(Op::Claim) == 0 && !mix.has(Op::Enqueue));
    }

    #[test]
    fn a_mix_that_makes_no_sense_is_refused_by_name() {
        for (wrong, named) in [("read", "read"), ("reed=1", "reed"), ("read=x", "x"), ("read=-1", "-1"), ("ack=1", "ack"), ("read=0", "0")]
        {
            assert!(wrong.parse::<Mix>().unwrap_err().contains(named), "{wrong}");
        }
    }

    #[test]
    fn each_skew_spreads_as_it_says() {
        let share = |skew, tenant| drawn(|dice| Spread::new(skew, 100).draw(dice), |drawn| drawn == tenant);
        assert!((60..140).contains(&share(Skew::Uniform, 0)) && (60..140).contains(&share(Skew::Uniform, 99)));
        // 1 / H(100) is 0.193.
        assert!((1_800..2_060).contains(&share(Skew::Zipf(1.0), 0)) && (880..1_060).contains(&share(Skew::Zipf(1.0), 1)));
        assert!((4_800..5_200).contains(&share(Skew::Hot(0.5), 0)) && share(Skew::Hot(0.5), 7) < 100);
    }

    #[test]
    fn a_skew_is_read_as_it_is_shown() {
        for text in ["uniform", "zipf:1.2", "hot:0.5"] {
            assert_eq!(text.parse::<Skew>().unwrap().to_string(), text);
        }
        assert_eq!("zipf".parse(), Ok(Skew::Zipf(1.0)));
        assert_eq!("hot".parse(), Ok(Skew::Hot(0.5)));
        for wrong in ["", "even", "zipf:x", "zipf:0", "hot:2", "uniform:1"] {
            assert!(wrong.parse::<Skew>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn dice_stay_inside_their_bounds() {
        let mut dice = Dice::new(1);
        assert!((0..10_000).all(|_| dice.below(3) < 3 && (0.0..1.0).contains(&dice.share())));
        assert_eq!((dice.below(1), dice.below(0)), (0, 0));
    }
}
