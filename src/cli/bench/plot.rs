//! Latency against load as a picture: plain SVG that a browser shows, with nothing from elsewhere.

use std::fmt::Write;

/// Latencies at one load.
pub struct Point {
    /// Requests a second.
    pub load: f64,
    /// Milliseconds: p50, p99, p99.9.
    pub quantiles: [f64; 3],
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
/// Room for what is written beside the axes: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (70.0, 90.0, 30.0, 60.0);
const LINES: [(&str, &str); 3] = [("p50", "#2a6f97"), ("p99", "#e07a1f"), ("p99.9", "#b3261e")];

/// The picture. Latencies stand on a logarithmic axis.
pub fn svg(about: &str, points: &[Point]) -> String {
    let (left, right, top, bottom) = MARGINS;
    let (wide, high) = (WIDTH - left - right, HEIGHT - top - bottom);
    let most = points.iter().map(|point| point.load).fold(1.0, f64::max);
    let all = || points.iter().flat_map(|point| point.quantiles).filter(|millis| *millis > 0.0);
    let low = all().fold(f64::INFINITY, f64::min).min(1.0).log10().floor();
    let high_power = all().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |load: f64| left + wide * load / most;
    let y = |millis: f64| top + high * (1.0 - (millis.max(1e-6).log10() - low) / (high_power - low));

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let mut power = low;
    while power <= high_power {
        let (height, value) = (y(10_f64.powf(power)), 10_f64.powf(power));
        line(&mut svg, (left, height), (left + wide, height), "#dddddd");
        text(&mut svg, (left - 8.0, height + 4.0), "end", "#333333", &format!("{value} ms"));
        power += 1.0;
    }
    for part in 0..=5 {
        let load = most * f64::from(part) / 5.0;
        line(&mut svg, (x(load), top), (x(load), top + high), "#eeeeee");
        text(&mut svg, (x(load), top + high + 20.0), "middle", "#333333", &format!("{load:.0}"));
    }
    text(&mut svg, (left + wide / 2.0, HEIGHT - 14.0), "middle", "#333333", about);
    for (place, (name, colour)) in LINES.iter().enumerate() {
        let corners: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.load), y(point.quantiles[place]))).collect();
        // Writing to a String does not fail.
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            corners.join(" ")
        );
        for point in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"><title>{name}, {:.0}/s: {:.2} ms</title></circle>",
                x(point.load),
                y(point.quantiles[place]),
                point.load,
                point.quantiles[place],
            );
        }
        if let Some(last) = points.last() {
            text(&mut svg, (x(last.load) + 10.0, y(last.quantiles[place]) + 4.0), "start", colour, name);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Writing to a String does not fail.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element that is opened is closed, in order, and nothing stands outside of one.
    fn is_well_formed(svg: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            if rest[..start].contains('>') {
                return false;
            }
            let Some(end) = rest[start..].find('>') else { return false };
            let tag = &rest[start + 1..start + end];
            if !tag.matches('"').count().is_multiple_of(2) {
                return false;
            }
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(name);
            }
            rest = &rest[start + end + 1..];
        }
        open.is_empty() && rest.trim().is_empty()
    }

    #[test]
    fn the_picture_is_well_formed_and_shows_every_point() {
        let points: Vec<Point> = (1..=5)
            .map(|step| Point { load: f64::from(step) * 1_000.0, quantiles: [0.5, 2.0, f64::from(step) * 30.0] })
            .collect();
        let picture = svg("a < b & c", &points);
        assert!(is_well_formed(&picture), "{picture}");
        assert_eq!(picture.matches("<circle").count(), 15);
        assert!(picture.contains("a &lt; b &amp; c") && picture.contains("p99.9"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        // Nothing is fetched: the only address is the name of the language.
        assert_eq!(picture.matches("http").count(), 1);
    }

    #[test]
    fn no_points_are_an_empty_picture() {
        let picture = svg("nothing", &[]);
        assert!(is_well_formed(&picture) && !picture.contains("NaN") && !picture.contains("inf"));
        assert!(!is_well_formed("<svg><g></svg>"));
    }
}
