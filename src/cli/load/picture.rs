//! The picture of a run, as SVG by hand: throughput over time, latency by percentile, memory, logs and descriptors over time.
//! Every panel is a [`Frame`] with axes and lines in it; text is escaped, and nothing is loaded from anywhere.

use std::fmt::Write;

use super::drive::Point;
use super::report::{Report, milliseconds};

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 884.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#7b8794";
const GRID: &str = "#e4e7eb";

/// What was refused.
const REFUSED: &str = "#dc2626";

/// One colour for each operation, apart also for those who tell few colours apart.
const COLOURS: [&str; 11] =
    ["#2563eb", "#0891b2", "#ea580c", "#b45309", "#16a34a", "#65a30d", "#0d9488", "#ca8a04", "#9333ea", "#db2777", "#64748b"];

type Line<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

pub fn draw(report: &Report) -> String {
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="Inter, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif" font-size="12" fill="{INK}">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#f5f7fa"/>
"##
    );
    let settings = &report.settings;
    let title = format!("{} operations a second over {} tenants", grouped(report.total.per_s.round()), grouped(settings.tenants as f64));
    text(&mut out, 32.0, 42.0, &title, "font-size=\"22\" font-weight=\"600\"");
    let total = &report.total;
    let latency = [("p50", total.p50_ms), ("p90", total.p90_ms), ("p99", total.p99_ms), ("p99.9", total.p999_ms)];
    let latency = latency.map(|(name, ms)| format!("{name} {} ms", milliseconds(ms))).join(", ");
    let asked = format!(
        "{} via {} · {} · {} · {} connections · {:.0} s",
        settings.mix,
        settings.via,
        settings.skew,
        report.pace(),
        settings.connections,
        report.measured_s
    );
    let got = format!("{latency} · durability: {} · tenantry {}", report.server.durability, report.server.version);
    for (line, about) in [(66.0, asked), (86.0, got)] {
        text(&mut out, 32.0, line, &about, &format!("fill=\"{FAINT}\" font-size=\"13\""));
    }

    let timeline = &report.timeline;
    let over_time =
        |value: &dyn Fn(&Point) -> Option<f64>| timeline.iter().filter_map(|point| Some((point.t_s, value(point)?))).collect::<Vec<_>>();
    let ends = (-settings.warmup_s, report.measured_s.max(1.0) + report.overload.map_or(0.0, |overload| overload.after_s));
    let mut answers = vec![("", COLOURS[0], over_time(&|p| Some(p.per_s)))];
    if timeline.iter().any(|point| point.refused_per_s > 0.0) {
        answers = vec![("done", COLOURS[0], answers.remove(0).2), ("refused", REFUSED, over_time(&|p| Some(p.refused_per_s)))];
    }
    let panel = |x: f64, y: f64, width: f64, height: f64| Frame { x, y, width, height };

    panel(24.0, 108.0, 1152.0, 250.0).over_time(&mut out, "Operations a second", ends, &answers, grouped);
    panel(24.0, 374.0, 700.0, 486.0).latency(&mut out, report);
    panel(740.0, 374.0, 436.0, 150.0).over_time(
        &mut out,
        "Memory and write-ahead logs, MB",
        ends,
        &[
            ("memory", COLOURS[4], over_time(&|p| Some(p.usage?.rss_bytes as f64 / 1e6))),
            ("logs", COLOURS[3], over_time(&|p| Some(p.inside?.wal_bytes as f64 / 1e6))),
        ],
        grouped,
    );
    let descriptors = over_time(&|p| Some(p.usage?.descriptors as f64));
    let threads = over_time(&|p| Some(p.usage?.threads as f64));
    panel(740.0, 542.0, 436.0, 150.0).over_time(
        &mut out,
        "Descriptors and threads",
        ends,
        &[("descriptors", COLOURS[6], descriptors), ("threads", COLOURS[8], threads)],
        grouped,
    );
    panel(740.0, 710.0, 436.0, 150.0)
        .over_time(&mut out, "Processors busy", ends, &[("", COLOURS[2], over_time(&|p| p.cpu))], |value| format!("{value:.1}"));
    out.push_str("</svg>\n");
    out
}

/// Where a panel stands.
struct Frame {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Frame {
    fn left(&self) -> f64 {
        self.x + 62.0
    }

    fn right(&self) -> f64 {
        self.x + self.width - 24.0
    }

    fn top(&self) -> f64 {
        self.y + 44.0
    }

    fn bottom(&self) -> f64 {
        self.y + self.height - 30.0
    }

    fn card(&self, out: &mut String, title: &str) {
        let Frame { x, y, width, height } = self;
        let _ = writeln!(out, r##"<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#fff" stroke="{GRID}"/>"##);
        text(out, x + 18.0, y + 26.0, title, "font-size=\"13\" font-weight=\"600\"");
    }

    /// Lines over seconds, from 0 up; what is before 0 is the warm-up and shaded.
    fn over_time(&self, out: &mut String, title: &str, ends: (f64, f64), lines: &[Line<'_>], label: impl Fn(f64) -> String) {
        self.card(out, title);
        if lines.iter().all(|(_, _, points)| points.len() < 2) {
            let (x, y) = ((self.left() + self.right()) / 2.0, (self.top() + self.bottom()) / 2.0);
            return text(out, x, y, "not measured", &format!("fill=\"{FAINT}\" text-anchor=\"middle\""));
        }
        let most = lines.iter().flat_map(|(_, _, points)| points).map(|point| point.1).fold(0.0, f64::max);
        let step = round_step(most / if self.height > 200.0 { 5.0 } else { 3.0 });
        let most = (most / step).ceil().max(1.0) * step;
        let x = |t: f64| self.left() + (t - ends.0) / (ends.1 - ends.0) * (self.right() - self.left());
        let y = |value: f64| self.bottom() - value / most * (self.bottom() - self.top());
        if ends.0 < 0.0 {
            let (from, until, height) = (x(ends.0), x(0.0), self.bottom() - self.top());
            let _ = writeln!(
                out,
                r##"<rect x="{from:.1}" y="{:.1}" width="{:.1}" height="{height:.1}" fill="#f0f2f5"/>"##,
                self.top(),
                until - from
            );
            if until - from > 52.0 && height > 100.0 {
                text(out, from + 6.0, self.top() + 14.0, "warm-up", &format!("fill=\"{FAINT}\" font-size=\"11\""));
            }
        }
        let mut value = 0.0;
        while value <= most + step / 2.0 {
            self.level(out, y(value), &label(value));
            value += step;
        }
        let seconds = round_step((ends.1 - ends.0) / 8.0);
        let mut t = (ends.0 / seconds).ceil() * seconds;
        while t <= ends.1 {
            let shown = if seconds < 1.0 { format!("{t:.1} s") } else { format!("{t:.0} s") };
            text(out, x(t), self.bottom() + 18.0, &shown, &format!("fill=\"{FAINT}\" font-size=\"11\" text-anchor=\"middle\""));
            t += seconds;
        }
        for (_, colour, points) in lines {
            let points: Vec<_> = points.iter().map(|(t, value)| (x(t.clamp(ends.0, ends.1)), y(*value))).collect();
            if lines.len() == 1 {
                area(out, colour, &points, self.bottom());
            }
            polyline(out, colour, &points);
        }
        self.legend(out, self.y + 22.0, lines.iter().filter(|line| !line.0.is_empty()).map(|line| (line.0, line.1)));
    }

    /// A line for each operation, over the share of its answers; both axes logarithmic, so that the slow end is seen.
    fn latency(&self, out: &mut String, report: &Report) {
        self.card(out, "Latency by percentile, ms");
        let rows: Vec<_> = report.operations.iter().chain(&report.refused).filter(|row| !row.curve.is_empty()).collect();
        let values = || rows.iter().flat_map(|row| &row.curve).map(|point| point.1).filter(|ms| *ms > 0.0);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        if rows.is_empty() || !least.is_finite() {
            return;
        }
        let levels = levels(least, most);
        let (low, high) = (levels[0].log10(), levels[levels.len() - 1].log10());
        let top = self.top() + 24.0;
        // By the share that is slower: a half on the left, a ten thousandth on the right.
        let from = 0.5_f64.log10();
        let x = |share: f64| self.left() + ((1.0 - share).max(1e-4).log10() - from) / (-4.0 - from) * (self.right() - self.left());
        let y = |ms: f64| self.bottom() - (ms.max(1e-3).log10() - low) / (high - low) * (self.bottom() - top);
        for ms in levels {
            self.level(out, y(ms), &if ms < 1.0 { format!("{}", (ms * 1e3).round() / 1e3) } else { grouped(ms) });
        }
        for share in [0.5, 0.9, 0.99, 0.999, 0.9999] {
            let at = x(share);
            let _ = writeln!(out, r##"<line x1="{at:.1}" y1="{top:.1}" x2="{at:.1}" y2="{:.1}" stroke="{GRID}"/>"##, self.bottom());
            let name = format!("{} %", (share * 1e4).round() / 100.0);
            let anchor = if share > 0.9995 { "end" } else { "middle" };
            text(out, at, self.bottom() + 18.0, &name, &format!("fill=\"{FAINT}\" font-size=\"11\" text-anchor=\"{anchor}\""));
        }
        let coloured: Vec<_> = rows.iter().map(|row| (row, colour(&row.operation))).collect();
        for (row, colour) in &coloured {
            polyline(out, colour, &row.curve.iter().map(|(share, ms)| (x(*share), y(*ms))).collect::<Vec<_>>());
        }
        self.legend(out, self.y + 48.0, coloured.iter().map(|(row, colour)| (row.operation.as_str(), *colour)));
    }

    /// A grid line and what it stands for.
    fn level(&self, out: &mut String, y: f64, label: &str) {
        let _ = writeln!(out, r##"<line x1="{:.1}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}" stroke="{GRID}"/>"##, self.left(), self.right());
        text(out, self.left() - 8.0, y + 4.0, label, &format!("fill=\"{FAINT}\" font-size=\"11\" text-anchor=\"end\""));
    }

    /// Names behind dots of their colour, to the right.
    fn legend<'a>(&self, out: &mut String, y: f64, names: impl Iterator<Item = (&'a str, &'a str)>) {
        const LETTER: f64 = 6.6;
        let names: Vec<_> = names.collect();
        let mut x = self.right() - names.iter().map(|(name, _)| name.len() as f64 * LETTER + 24.0).sum::<f64>() + 12.0;
        for (name, colour) in names {
            let _ = writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#);
            text(out, x + 8.0, y + 4.0, name, "font-size=\"11.5\"");
            x += name.len() as f64 * LETTER + 24.0;
        }
    }
}

fn colour(operation: &str) -> &'static str {
    super::mix::Op::ALL.iter().position(|op| op.name() == operation).map_or(REFUSED, |at| COLOURS[at % COLOURS.len()])
}

fn text(out: &mut String, x: f64, y: f64, text: &str, attributes: &str) {
    let _ = writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{}</text>"#, escaped(text));
}

fn polyline(out: &mut String, colour: &str, points: &[(f64, f64)]) {
    let _ = writeln!(
        out,
        r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>"#,
        joined(points)
    );
}

fn area(out: &mut String, colour: &str, points: &[(f64, f64)], bottom: f64) {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let (from, until) = (first.0, last.0);
    let _ = writeln!(
        out,
        r#"<polygon points="{from:.1},{bottom:.1} {} {until:.1},{bottom:.1}" fill="{colour}" fill-opacity="0.10"/>"#,
        joined(points)
    );
}

fn joined(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    if step.is_nan() || step <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|round| *round >= step).unwrap_or(10.0 * power)
}

/// 1, 2 and 5 times powers of ten, from the last one that is below all to the first one above.
fn levels(least: f64, most: f64) -> Vec<f64> {
    let decades = (least.log10().floor() as i32 - 1)..=(most.log10().ceil() as i32 + 1);
    let all: Vec<f64> = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|times| times * 10_f64.powi(decade))).collect();
    let first = all.iter().rposition(|level| *level <= least).unwrap_or(0);
    let last = all.iter().position(|level| *level >= most && *level > all[first]).unwrap_or(all.len() - 1);
    all[first..=last].to_vec()
}

/// `12 300`; parts of one only where there is no whole.
fn grouped(value: f64) -> String {
    if value != value.round() {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps_and_grouped_numbers() {
        assert_eq!([0.03, 1.0, 1.1, 340.0, 0.0].map(round_step), [0.05, 1.0, 2.0, 500.0, 1.0]);
        assert_eq!([0.0, 999.0, 12_300.0, 0.5].map(grouped), ["0", "999", "12\u{202f}300", "0.5"]);
    }

    #[test]
    fn a_logarithmic_axis_holds_what_is_on_it() {
        let close = |(one, other): (&f64, &f64)| (one / other - 1.0).abs() < 1e-9;
        for (least, most, expected) in [(3.4, 30.1, vec![2.0, 5.0, 10.0, 20.0, 50.0]), (0.4, 0.4, vec![0.2, 0.5])] {
            let levels = levels(least, most);
            assert!(levels.len() == expected.len() && levels.iter().zip(&expected).all(close), "{levels:?}");
        }
    }

    #[test]
    fn text_stays_text() {
        let mut out = String::new();
        text(&mut out, 1.0, 2.0, "<a> & \"b\"", "");
        assert!(out.contains("&lt;a&gt; &amp; &quot;b&quot;"), "{out}");
    }
}
