//! A [`Bar`]: how far a phase is, on one line of stderr that is written over and gone in the end. Nothing is written
//! where stderr is no terminal.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 28;

/// Between two redrawings.
const REDRAWN: Duration = Duration::from_millis(100);

pub struct Bar {
    label: &'static str,
    total: f64,
    done: Cell<f64>,
    drawn: Cell<Option<Instant>>,
    shows: bool,
}

impl Bar {
    pub fn new(label: &'static str, total: f64) -> Bar {
        Bar { label, total, done: Cell::new(0.0), drawn: Cell::new(None), shows: std::io::stderr().is_terminal() }
    }

    /// One more, of as many as the total says.
    pub fn advance(&self) {
        self.done.set(self.done.get() + 1.0);
        let (done, total) = (self.done.get(), self.total);
        self.draw(|| format!("{done:.0} of {total:.0}"));
    }

    /// So far, and what is to be said of it.
    pub fn at(&self, done: f64, text: impl FnOnce() -> String) {
        self.done.set(done);
        self.draw(text);
    }

    fn draw(&self, text: impl FnOnce() -> String) {
        if !self.shows || self.drawn.get().is_some_and(|drawn| drawn.elapsed() < REDRAWN) {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        // A terminal that went away is nobody to tell.
        let _ = write!(std::io::stderr().lock(), "\r{}\x1b[K", line(self.label, self.done.get() / self.total, &text()));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.get().is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(label: &str, share: f64, text: &str) -> String {
    let share = share.clamp(0.0, 1.0);
    let full = (share * WIDTH as f64) as usize;
    format!("{label:<12} {}{} {:>3.0} %  {text}", "█".repeat(full), "░".repeat(WIDTH - full), share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_the_share() {
        for share in [-1.0, 0.0, 0.5, 1.0, 7.0, f64::NAN] {
            assert_eq!(line("seeding", share, "").chars().filter(|c| "█░".contains(*c)).count(), WIDTH);
        }
        assert_eq!(line("seeding", 0.5, "5 of 10").trim_end(), "seeding      ██████████████░░░░░░░░░░░░░░  50 %  5 of 10");
    }
}
