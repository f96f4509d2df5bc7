//! Line plots and bars as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
const BAR_HEIGHT: f64 = 26.0;

/// A curve.
#[derive(Clone, Debug)]
pub struct Line {
    /// Written at its end.
    pub label: String,
    /// As in CSS.
    pub colour: &'static str,
    /// In the axes' units.
    pub points: Vec<(f64, f64)>,
}

/// One direction of a plot.
#[derive(Clone, Debug)]
pub struct Axis {
    title: String,
    low: f64,
    high: f64,
    is_logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero to a round number that holds all values.
    #[must_use]
    pub fn linear(title: &str, values: impl Iterator<Item = f64>) -> Axis {
        let most = values.fold(0.0, f64::max);
        let step = round_step(if most > 0.0 { most / 5.0 } else { 0.2 });
        let count = (most / step).ceil().max(1.0) as usize;
        let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
        let tick = |at: usize| (at as f64 * step, format!("{:.digits$}", at as f64 * step));
        Axis {
            title: title.to_owned(),
            low: 0.0,
            high: count as f64 * step,
            is_logarithmic: false,
            ticks: (0..=count).map(tick).collect(),
        }
    }

    /// Powers of ten around all values.
    #[must_use]
    pub fn logarithmic(title: &str, values: impl Iterator<Item = f64>) -> Axis {
        let (mut low, mut high) = (f64::MAX, f64::MIN);
        for value in values.map(|value| value.max(1e-3)) {
            low = low.min(value);
            high = high.max(value);
        }
        let (first, last) = if low > high {
            (0, 1)
        } else {
            let first = low.log10().floor() as i32;
            (first, (high.log10().ceil() as i32).max(first + 1))
        };
        let tick = |exponent: i32| {
            let value = 10_f64.powi(exponent);
            let digits = (-exponent).max(0) as usize;
            (value, format!("{value:.digits$}"))
        };
        Axis {
            title: title.to_owned(),
            low: 10_f64.powi(first),
            high: 10_f64.powi(last),
            is_logarithmic: true,
            ticks: (first..=last).map(tick).collect(),
        }
    }

    /// From the first tick to the last.
    #[must_use]
    pub fn labelled(title: &str, ticks: Vec<(f64, String)>) -> Axis {
        Axis {
            title: title.to_owned(),
            low: ticks.first().map_or(0.0, |tick| tick.0),
            high: ticks.last().map_or(1.0, |tick| tick.0),
            is_logarithmic: false,
            ticks,
        }
    }

    /// Where a value lies between the ends.
    fn share(&self, value: f64) -> f64 {
        let scaled = |value: f64| {
            if self.is_logarithmic {
                value.max(1e-9).log10()
            } else {
                value
            }
        };
        let (low, high) = (scaled(self.low), scaled(self.high));
        ((scaled(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least so much.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= least * 0.999)
        .unwrap_or(10.0 * power)
}

/// A plot.
pub struct Plot {
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The curves.
    pub lines: Vec<Line>,
}

impl Plot {
    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let x = |value: f64| LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
             font-size=\"12\" font-family=\"system-ui,sans-serif\">"
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let at = y(*value);
            let _ = write!(
                out,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e3e8ee\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\" fill=\"#5b6b7b\">{label}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        for (value, label) in &self.x.ticks {
            let at = x(*value);
            let _ = write!(
                out,
                "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#9aa7b4\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\" fill=\"#5b6b7b\">{label}</text>",
                bottom + 18.0
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#1c2733\">{}</text>\
             <text x=\"12\" y=\"{:.1}\" fill=\"#1c2733\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 8.0,
            self.x.title,
            HEIGHT / 2.0,
            self.y.title
        );
        let mut labels: Vec<(f64, &Line)> = Vec::new();
        for line in &self.lines {
            let mut path = String::new();
            for (at, (px, py)) in line.points.iter().enumerate() {
                let command = if at == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{:.1} {:.1}", x(*px), y(*py));
                if line.points.len() <= 20 {
                    let _ = write!(
                        out,
                        "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{}\"/>",
                        x(*px),
                        y(*py),
                        line.colour
                    );
                }
            }
            let _ = write!(
                out,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                line.colour
            );
            labels.push((line.points.last().map_or(bottom, |point| y(point.1)), line));
        }
        // Labels at the ends of their lines, moved apart where those meet.
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut lowest = TOP;
        for (at, line) in labels {
            let at = at.max(lowest);
            lowest = at + 14.0;
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{}\">{}</text>",
                right + 8.0,
                at + 4.0,
                line.colour,
                line.label
            );
        }
        out + "</svg>"
    }
}

/// Bars of hundredths, each with a label and a colour.
#[must_use]
pub fn bars(shares: &[(String, f64, &str)]) -> String {
    let most = shares.iter().map(|share| share.1).fold(100.0, f64::max);
    let height = BAR_HEIGHT * shares.len() as f64;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" font-size=\"12\" \
         font-family=\"system-ui,sans-serif\">"
    );
    const LABEL: f64 = 130.0;
    for (row, (label, percent, colour)) in shares.iter().enumerate() {
        let top = row as f64 * BAR_HEIGHT + 4.0;
        let width = (WIDTH - LABEL - 60.0) * percent / most;
        let text = top + BAR_HEIGHT / 2.0;
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{text:.1}\" fill=\"#1c2733\">{label}</text><rect x=\"{LABEL}\" y=\"{top:.1}\" \
             width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{text:.1}\" \
             fill=\"#5b6b7b\">{percent:.1} %</text>",
            BAR_HEIGHT - 8.0,
            LABEL + width + 8.0
        );
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values_between_round_ends() {
        let axis = Axis::linear("ms", [3.0, 41.0].into_iter());
        assert_eq!((axis.low, axis.high), (0.0, 50.0));
        assert_eq!(axis.share(25.0), 0.5);
        let axis = Axis::logarithmic("ms", [0.2, 9.0].into_iter());
        assert_eq!((axis.low, axis.high), (0.1, 10.0));
        assert!((axis.share(1.0) - 0.5).abs() < 1e-9);
        let empty = Axis::logarithmic("ms", std::iter::empty());
        assert!(empty.low < empty.high);
        assert_eq!(Axis::linear("%", [0.0].into_iter()).share(0.0), 0.0);
    }

    #[test]
    fn a_line_becomes_a_path() {
        let plot = Plot {
            x: Axis::linear("n", [10.0].into_iter()),
            y: Axis::linear("ms", [10.0].into_iter()),
            lines: vec![Line {
                label: "all".into(),
                colour: "#000",
                points: vec![(0.0, 0.0), (10.0, 10.0)],
            }],
        };
        let svg = plot.svg();
        assert!(svg.contains("M60.0 256.0L670.0 14.0"), "{svg}");
    }
}
