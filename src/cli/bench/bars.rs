//! Bars on a terminal: how far the whole is, and the load that runs.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::load::BAR;

/// The bars; hidden unless standard error is a terminal.
#[derive(Clone)]
pub struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
}

impl Bars {
    /// For so many loads.
    pub fn new(loads: u64) -> Self {
        let all = MultiProgress::new();
        let whole = all.add(ProgressBar::new(loads).with_style(style("all {bar:32} {pos}/{len}  {eta} left")));
        whole.tick();
        Self { all, whole }
    }

    /// The bar of a load that begins.
    pub fn begin(&self, name: &str) -> ProgressBar {
        let bar = ProgressBar::new(BAR).with_message(name.replace('_', " "));
        self.all.add(bar.with_style(style("    {bar:32} {percent:>3}%  {eta} left  {msg}")))
    }

    /// A load has ended.
    pub fn end(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.whole.inc(1);
    }

    /// All have ended.
    pub fn finish(&self) {
        self.whole.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
